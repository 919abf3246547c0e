"""Named sequences of transforms."""

from __future__ import annotations

from collections.abc import Sequence

from featviz import codec, plugins
from featviz.errors import FeatvizError, shorten
from featviz.transforms.base import Transform
from featviz.transforms.foreign import adapted
from featviz.transforms.geometric import Crop, Jitter, Pad, Rotate, Scale
from featviz.transforms.intensity import Background, Noise, Roll
from featviz.transforms.network import BranchNoise, ChannelNoise

NAMES: dict[str, type] = {
    "jitter": Jitter,
    "rotate": Rotate,
    "scale": Scale,
    "pad": Pad,
    "crop": Crop,
    "noise": Noise,
    "roll": Roll,
    "background": Background,
    "channel_noise": ChannelNoise,
    "branch_noise": BranchNoise,
}


def standard() -> tuple[Transform, ...]:
    """Return the default: a soft warp, a little pixel noise, and noise in the network.

    The warp leaves objects whole, and the blurred surroundings beyond the frame keep them inside
    it; the noise in the network makes them recognizable to networks that were not used in the
    optimization.
    ``docs/quality.md`` has the measurements.
    """
    return (
        Pad(0, "blur"),
        Jitter(0.07),
        Rotate(10),
        Scale(0.75, 1.15),
        Noise(0.04),
        ChannelNoise(0.07),
        BranchNoise(0.1),
    )


def lucid() -> tuple[Transform, ...]:
    """Return lucid's published defaults, here as one warp.

    Pad by 12, jitter by 8, scale by 0.9 to 1.1, rotate by up to 10 degrees, jitter by 4.
    [Olah2017]_
    """
    return (Pad(12, "gray"), Jitter(8), Scale(0.9, 1.1), Rotate(10), Jitter(4))


PRESETS = {"standard": standard, "lucid": lucid, "none": tuple}


def parse(text: str) -> tuple[Transform, ...]:
    """Return the transforms that a text describes: a preset, or ``jitter:8,rotate:5,noise:0.1``.

    Raises
    ------
    FeatvizError
        For an unknown name or setting.
    """
    if text in PRESETS:
        return tuple(PRESETS[text]())
    return tuple(
        codec.read(word, NAMES, "transform", plugins.TRANSFORMS, Transform)
        for word in text.split(",")
    )


def text(transforms: Sequence[Transform]) -> str | None:
    """Return the text that :func:`parse` reads back, or None for user-defined transforms.

    It spells out the presets, whose transforms may change from one version to the next.
    """
    if not transforms:
        return "none"
    words = [codec.write(t, NAMES, plugins.TRANSFORMS) for t in transforms]
    return None if None in words else ",".join(w for w in words if w)


def check(transforms: object) -> tuple[Transform, ...]:
    """Return transforms as a tuple; raise :class:`FeatvizError` for anything else.

    Functions, modules and those of other libraries are wrapped.
    """
    if isinstance(transforms, str):
        return parse(transforms)
    transforms = adapted(transforms)
    if isinstance(transforms, Transform):
        return (transforms,)
    if isinstance(transforms, Sequence) and all(isinstance(t, Transform) for t in transforms):
        return tuple(transforms)
    raise FeatvizError(
        f"transforms must be featviz transforms or their text, not {shorten(repr(transforms))}"
    )
