"""Quality presets: the settings that are not given.

``docs/quality.md`` has what each ingredient buys; ``benchmarks/quality.py`` measures it.
"""

from __future__ import annotations

import dataclasses

from featviz.errors import FeatvizError, did_you_mean
from featviz.types import ScheduleName


@dataclasses.dataclass(frozen=True)
class Pace:
    """How Adam moves a parameterization whose own rate is 1.

    ``rate`` is the learning rate for up to 256 steps. Weight decay lets go of what no gradient
    sustains, and so allows a higher rate, kept for longer.
    """

    rate: float
    schedule: ScheduleName = "cosine"
    weight_decay: float = 0.0


@dataclasses.dataclass(frozen=True)
class Quality:
    """A preset for images (H, W).

    ``prior`` is the weight of :mod:`featviz.optim.prior`, ``coarse`` the share of the steps at half
    the size (:mod:`featviz.optim.stages`), ``focus`` the power of :mod:`featviz.optim.focus`.
    ``fading`` is the pace of images that begin at noise and
    fade to gray, ``steady`` that of all others.
    """

    steps: int
    transforms: str = "standard"
    param: str = "fourier"
    fading: Pace = Pace(0.3, "flat_cosine", 0.06)
    steady: Pace = Pace(0.12)
    prior: float = 10.0
    coarse: float = 0.4
    focus: float = 1.0


_LUCID = Pace(0.1, "constant")

QUALITIES = {
    "fast": Quality(
        64,
        "pad:0:blur,jitter:0.05,rotate:10,scale:0.9:1.1,channel_noise:0.05",
        fading=Pace(0.5, "flat_cosine", 0.1),
        steady=Pace(0.25),
        coarse=0,
        focus=0,
    ),
    "standard": Quality(256),
    "best": Quality(512),
    # lucid's published defaults, where its images have their grain and their detail from.
    "lucid": Quality(
        512,
        "lucid",
        "fourier:decay=1:chroma=0",
        fading=_LUCID,
        steady=_LUCID,
        prior=0,
        coarse=0,
        focus=0,
    ),
}


def find_quality(name: str) -> Quality:
    """Return the preset called ``name``; raise :class:`FeatvizError` if there is none."""
    if not isinstance(name, str) or name not in QUALITIES:
        hint = did_you_mean(str(name), QUALITIES) or f": use {', '.join(QUALITIES)}"
        raise FeatvizError(f"no quality {name!r}{hint}")
    return QUALITIES[name]
