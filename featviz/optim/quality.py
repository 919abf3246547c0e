"""How much an image may cost: steps and transforms that were found to go together.

``benchmarks/time_to_recognition.py`` compares them.
"""

from __future__ import annotations

import dataclasses

from featviz.errors import FeatvizError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Quality:
    """A preset: ``steps``, and for images (H, W) the ``transforms``."""

    steps: int
    transforms: str = "standard"


QUALITIES = {
    # Few steps get further with less to survive; noise and small scales pay from about 200 on.
    "fast": Quality(64, "jitter:0.05,rotate:10,scale:0.9:1.1"),
    "standard": Quality(512),
    "best": Quality(1024),
}


def find_quality(name: str) -> Quality:
    """Return the preset called ``name``; raise :class:`FeatvizError` if there is none."""
    if name not in QUALITIES:
        hint = did_you_mean(str(name), QUALITIES) or f"; it is {', '.join(QUALITIES)}"
        raise FeatvizError(f"no quality {name!r}{hint}")
    return QUALITIES[name]
