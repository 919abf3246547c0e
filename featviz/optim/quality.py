"""Quality presets: numbers of steps, with transforms that suit them.

``benchmarks/time_to_recognition.py`` compares the presets.
"""

from __future__ import annotations

import dataclasses

from featviz.errors import FeatvizError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Quality:
    """A preset: ``steps``, and the ``transforms`` for images (H, W)."""

    steps: int
    transforms: str = "standard"


QUALITIES = {
    # Few steps get further with weak transforms; noise and small scales pay off from about 200.
    "fast": Quality(64, "jitter:0.05,rotate:10,scale:0.9:1.1"),
    "standard": Quality(512),
    "best": Quality(1024),
}


def find_quality(name: str) -> Quality:
    """Return the preset called ``name``; raise :class:`FeatvizError` if there is none."""
    if name not in QUALITIES:
        hint = did_you_mean(str(name), QUALITIES) or f": use {', '.join(QUALITIES)}"
        raise FeatvizError(f"no quality {name!r}{hint}")
    return QUALITIES[name]
