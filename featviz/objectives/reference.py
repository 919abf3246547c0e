"""Images that objectives compare with, and what the network makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from featviz.errors import UnitError
from featviz.io import images
from featviz.objectives import arrays
from featviz.objectives.scene import IMAGE, Target
from featviz.resample import resize
from featviz.types import Tensor

#: An image in Python: floats (C, *size) or (N, C, *size) in [0, 1], or the name of a file.
Picture = str | Path | np.ndarray | Tensor


def keep(picture: Picture, what: str) -> str:
    """Return the text field of an image: its file, or the name of the array."""
    return arrays.keep_name(picture, what)


def pictures(source: str, target: Target) -> Tensor:
    """Return the image or images (N, C, *size), resized to what the network sees.

    Raises
    ------
    FeatvizError
        If the file cannot be read, or the channels do not fit the model.
    """
    model, size = target.model, target.size
    if source.startswith("array:") or source.endswith((".npy", ".safetensors")):
        found = torch.as_tensor(arrays.load(source), dtype=torch.float32)
        found = found if found.ndim == len(size) + 2 else found[None]
    else:
        found = images.read(source, model.channels, size)
    if found.ndim != len(size) + 2 or found.shape[1] != model.channels:
        raise UnitError(
            f"image {source!r} has shape {tuple(found.shape)}, but the model takes "
            f"(N, {model.channels}, {', '.join(map(str, size))})"
        )
    return resize(found, size, antialias=True).to(target.device)


def activation(source: str, layer: str, target: Target) -> Tensor:
    """Return the layer's activation (N, …) for the reference, without gradient."""
    shown = pictures(source, target)
    if layer == IMAGE:
        return shown
    with torch.no_grad():
        return target.model.activations(shown, [layer])[layer].float()
