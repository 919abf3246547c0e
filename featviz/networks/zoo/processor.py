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
    """Return ``size``, ``mean``, ``std`` and ``order`` of :class:`featviz.Model` for a processor.

    ``size`` is what it makes of a picture. How it gets there (resampling, the fraction that a
    centre crop keeps) is its own business: featviz crops files to the aspect ratio and resizes.

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
    back = [order.index(source) for source in range(3)]
    std = (1 / gain)[back]
    mean = -(black[back]) * std
    return {
        "size": size,
        "mean": _exact(processor, "mean", mean),
        "std": _exact(processor, "std", std),
        "order": None if order == [0, 1, 2] else tuple(order),
    }


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
