"""How much a picture may cost: steps, rate and views that were found to go together.

``benchmarks/time_to_recognition.py`` compares them.
"""

from __future__ import annotations

import dataclasses

from featviz.errors import FeatvizError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Quality:
    """A preset: ``rate`` is a factor of the default learning rate.

    ``views`` are transforms by which the network sees smaller parts of the picture, for networks
    and objectives that take these.
    """

    steps: int
    rate: float = 1.0
    views: str | None = None


QUALITIES = {
    # A view of 5/7 of each side costs half, and shows things as large as before.
    "fast": Quality(64, 3.0, "jitter:0.2,rotate:15,scale:0.5:1.2,crop:0.7143,noise:0.1"),
    "standard": Quality(512),
    "best": Quality(1024),
}


def find(name: str) -> Quality:
    """Return the preset called ``name``; raise :class:`FeatvizError` if there is none."""
    if name not in QUALITIES:
        hint = did_you_mean(str(name), QUALITIES) or f"; it is {', '.join(QUALITIES)}"
        raise FeatvizError(f"no quality {name!r}{hint}")
    return QUALITIES[name]
