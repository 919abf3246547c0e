"""Reference images of objectives, and the network's activations for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from featviz.errors import UnitError
from featviz.io import images
from featviz.io.inputs import ROUNDING
from featviz.objectives import arrays
from featviz.objectives.scene import IMAGE, Target
from featviz.resample import resize
from featviz.types import Tensor

#: A reference image in Python: floats (C, *size) or (N, C, *size) in [0, 1], or the name of a file.
Picture = str | Path | np.ndarray | Tensor


def register(picture: Picture, what: str) -> str:
    """Return an image in the form for an objective's text: its file, or the name of the array.

    Raises
    ------
    UnitError
        If it is an array of other than floats.
    """
    if isinstance(picture, (np.ndarray, torch.Tensor)):
        floats = torch.is_floating_point(picture) if isinstance(picture, torch.Tensor) else False
        if not floats and not (isinstance(picture, np.ndarray) and picture.dtype.kind == "f"):
            raise UnitError(f"{what} must be floats in [0, 1], not {picture.dtype}: divide by 255")
    return arrays.register_name(picture, what)


def pictures(source: str, target: Target) -> Tensor:
    """Return the reference image or images (N, C, *size), resized to the network's input size.

    Raises
    ------
    FeatvizError
        If the file cannot be read, or the channels do not match the model's.
    """
    model, size = target.model, target.size
    if source.startswith("array:") or source.endswith((".npy", ".safetensors")):
        values = arrays.load(source)
        if values.dtype == np.uint8:  # of a file
            raise UnitError(f"image {source!r} must be floats in [0, 1], not bytes: divide by 255")
        pixels = torch.as_tensor(values, dtype=torch.float32)
        pixels = pixels if pixels.ndim == len(size) + 2 else pixels[None]
    else:
        pixels = images.read(source, model.channels, size)
    if pixels.ndim != len(size) + 2 or pixels.shape[1] != model.channels:
        raise UnitError(
            f"image {source!r} has shape {tuple(pixels.shape)}, but the model takes "
            f"(N, {model.channels}, {', '.join(map(str, size))})"
        )
    low, high = (float(v) for v in pixels.aminmax())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise UnitError(
            f"image {source!r} must be in [0, 1], not from {low:.3g} to {high:.3g}: scale it"
        )
    return resize(pixels, size, antialias=True).to(target.device)


def activation(source: str, layer: str, target: Target) -> Tensor:
    """Return the layer's activation (N, …) for the reference images, without gradient."""
    inputs = pictures(source, target)
    if layer == IMAGE:
        return inputs
    with torch.no_grad():
        return target.model.activations(inputs, [layer])[layer].float()
