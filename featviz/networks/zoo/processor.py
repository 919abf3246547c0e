"""Preprocessing of Hugging Face image processors: measured on a few images, checked on another.

A processor rescales, shifts, normalizes and reorders channels by a dozen fields whose meaning
differs between classes. What they do together is an affine map of each channel, which black, white
and pure colours reveal whatever the fields are called.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from featviz.errors import ModelError
from featviz.types import Tensor

#: How far the processor and the measured preprocessing may differ, relative to the value range.
TOLERANCE = 1e-3
_STEPS = ("do_resize", "do_center_crop", "do_pad")


def measured(processor: Any, name: str) -> dict[str, Any]:
    """Return the arguments of :class:`featviz.Model` for a processor.

    They are ``size``, ``mean``, ``std``, ``order`` and ``crop``, the fraction that its centre crop
    keeps of a picture of the network's aspect ratio. featviz crops others to that aspect ratio;
    processors that squash or pad them, and the kind of resampling, are not matched.

    Raises
    ------
    ModelError
        If the processor fails, or does anything else to the pixels, such as normalizing each image
        by its own statistics.
    """
    try:
        output = processor(images=_uniform(0.5, (384, 512)), return_tensors="pt")["pixel_values"]
        if output.ndim != 4 or output.shape[1] != 3:
            raise ModelError(
                f"cannot use model {name!r}: its processor returns shape {tuple(output.shape)}, "
                "not (1, 3, H, W)"
            )
        size = (int(output.shape[2]), int(output.shape[3]))
        black = _pixels(processor, _uniform((0, 0, 0), size)).mean((2, 3))[0]
        pure = [_uniform(tuple(float(c == s) for c in range(3)), size) for s in range(3)]
        gains = torch.stack([_pixels(processor, p).mean((2, 3))[0] - black for p in pure])
        order = gains.abs().argmax(0).tolist()  # the image's channel in each of the network's
        generator = torch.Generator().manual_seed(0)
        random = torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8)
        image = random.numpy()
        expected = _pixels(processor, Image.fromarray(image))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        if isinstance(error, ModelError):
            raise
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"cannot use model {name!r}: its processor fails: {reason}") from error
    gain = torch.stack([gains[source, c] for c, source in enumerate(order)])
    images = torch.from_numpy(image).double().div(255).movedim(2, 0)[None]
    actual = images[:, order] * gain.view(-1, 1, 1) + black.view(-1, 1, 1)
    span = float(gain.abs().max())
    error_found = float((actual - expected).abs().max()) if expected.shape == actual.shape else 1e9
    if sorted(order) != [0, 1, 2] or not gain.min() > 0 or not error_found <= TOLERANCE * span:
        raise ModelError(
            f"cannot use model {name!r}: its processor does more than scale, shift and reorder "
            "channels; load the network yourself and give fv.Model a function that preprocesses"
        )
    crop = _kept(processor, size, float(gain[0]), float(black[0]), name)
    back = [order.index(source) for source in range(3)]
    std = (1 / gain)[back]
    mean = -(black[back]) * std
    return {
        "size": size,
        "mean": _exact(processor, "mean", mean),
        "std": _exact(processor, "std", std),
        "order": None if order == [0, 1, 2] else tuple(order),
        "crop": crop,
    }


def _kept(processor: Any, size: tuple[int, int], gain: float, black: float, name: str) -> float:
    """Return the fraction of each side that a processor keeps of a large picture, its centre.

    Ramps from left to right and from top to bottom show which part of them comes out.
    """
    fractions = []
    sides = tuple(side * max(1, round(1024 / max(size))) for side in size)
    for axis in (0, 1):
        levels = (torch.arange(sides[axis]) + 0.5) / sides[axis]
        # Dithered in broad stripes along the ramp, so that their mean is finer than 8 bits.
        stripes = torch.arange(sides[1 - axis]) * 32 // sides[1 - axis]
        dither = stripes * 0.6180339887 % 1 - 0.5
        ramp = (levels.view(-1, 1) * 255 + dither).round().clamp(0, 255).byte()
        ramp = ramp if axis == 0 else ramp.T
        picture = Image.fromarray(np.repeat(ramp.numpy()[..., None], 3, 2))
        output = processor(images=picture, return_tensors="pt")["pixel_values"].double()
        profile = (output[0, 0].mean(1 - axis) - black) / gain
        count = len(profile)
        places = (torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5
        # The ends are left out: resampling bends them.
        inner = slice(count // 8, count - count // 8)
        x, y = places[inner], profile[inner]
        slope = float((x * (y - y.mean())).sum() / (x * (x - x.mean())).sum())
        middle = float((y - slope * x).mean())
        bent = float((y - slope * x - middle).abs().max())
        if not (0.01 < slope <= 1.02 and abs(middle - 0.5) < 0.02 and bent < 0.02):
            raise ModelError(
                f"cannot use model {name!r}: its processor keeps no centre of a picture (it pads, "
                "turns or tiles it); load the network yourself and give fv.Model a function that "
                "preprocesses"
            )
        fractions.append(slope)
    crop = sum(fractions) / 2
    return 1.0 if crop > 0.995 else round(crop, 3)


def _uniform(colour: float | tuple[float, ...], size: tuple[int, int]) -> Image.Image:
    levels = (colour,) * 3 if isinstance(colour, float) else colour
    pixels = np.full((*size, 3), [round(level * 255) for level in levels], dtype=np.uint8)
    return Image.fromarray(pixels)


def _pixels(processor: Any, image: Image.Image) -> Tensor:
    """Return what the processor makes of an image that has the right size already."""
    off = {step: False for step in _STEPS if hasattr(processor, step)}
    pixels: Tensor = processor(images=image, return_tensors="pt", **off)["pixel_values"]
    return pixels.double()


def _exact(processor: Any, field: str, values: Tensor) -> tuple[float, ...]:
    """Return the numbers in the processor's field if these are they, without rounding."""
    stated = getattr(processor, f"image_{field}", None)
    try:
        numbers = torch.as_tensor(stated, dtype=torch.float64).expand(3)
    except (TypeError, ValueError, RuntimeError):
        return tuple(values.tolist())
    close = torch.allclose(numbers, values, rtol=1e-4, atol=1e-4)
    return tuple((numbers if close else values).tolist())
