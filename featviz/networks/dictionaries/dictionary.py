"""A dictionary: directions of a layer, and how much of each an activation has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from featviz.errors import FeatvizError
from featviz.types import Tensor

if TYPE_CHECKING:
    from featviz.networks.model import Model

NONLINEARITIES = ("relu", "identity", "jumprelu", "topk:K")


class Dictionary(nn.Module):
    """Features of a layer: codes f(E (x − c) + b) of activations x, and their sum D codes + d.

    A sparse autoencoder [Bricken2023]_ [Gao2024]_, a transcoder (whose sum is another layer's
    activation), or any other linear map with a bias and a nonlinearity.

    Parameters
    ----------
    encoder
        E, (features, units).
    decoder
        D as rows, (features, units): the direction of each feature; None if it is not needed.
    bias
        b, (features,); zero if None.
    center
        c, (units,), subtracted from activations before they are encoded; zero if None.
    offset
        d, (units,), added to the sum; zero if None.
    nonlinearity
        ``relu``; ``identity``; ``jumprelu``, values above ``threshold`` as they are and others zero
        [Rajamanoharan2024]_; or ``topk:32``, the 32 largest values of a position, where they are
        positive and above all others.
    threshold
        (features,), for ``jumprelu``.
    layer
        The layer whose activations these are, where it is known.
    notes
        What to keep with it in a file: figures of its training, for example.

    Raises
    ------
    FeatvizError
        If shapes do not fit, a number is not finite, or the nonlinearity is unknown.
    """

    def __init__(
        self,
        encoder: Tensor,
        decoder: Tensor | None = None,
        *,
        bias: Tensor | None = None,
        center: Tensor | None = None,
        offset: Tensor | None = None,
        nonlinearity: str = "relu",
        threshold: Tensor | None = None,
        layer: str | None = None,
        notes: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        features, units = _matrix(encoder)
        self.nonlinearity, self.layer, self.notes = nonlinearity, layer, dict(notes or {})
        self._k = _check_nonlinearity(nonlinearity, threshold is not None, features)
        for name, value, shape in (
            ("encoder", encoder, (features, units)),
            ("decoder", decoder, (features, units)),
            ("bias", bias, (features,)),
            ("center", center, (units,)),
            ("offset", offset, (units,)),
            ("threshold", threshold, (features,)),
        ):
            self.register_buffer(name, None if value is None else _checked(name, value, shape))

    encoder: Tensor
    decoder: Tensor | None
    bias: Tensor | None
    center: Tensor | None
    offset: Tensor | None
    threshold: Tensor | None

    @property
    def features(self) -> int:
        """The number of features."""
        return len(self.encoder)

    @property
    def units(self) -> int:
        """The number of units of the layer."""
        return self.encoder.shape[1]

    def __repr__(self) -> str:
        where = f" of {self.layer!r}" if self.layer else ""
        return f"<Dictionary{where}: {self.features} features, {self.units} units>"

    def forward(self, activations: Tensor) -> Tensor:
        """Return the codes (…, features) of activations (…, units)."""
        values = activations if self.center is None else activations - self.center
        values = F.linear(values, self.encoder, self.bias)
        if self.nonlinearity == "identity":
            return values
        if self.threshold is not None:
            return _above(values, self.threshold)
        if self._k in (None, self.features):
            return values.relu()
        next_one = values.topk(self._k + 1, dim=-1).values[..., -1:]
        return _above(values, next_one.detach().relu())

    def decode(self, codes: Tensor) -> Tensor:
        """Return the activations (…, units) that codes (…, features) stand for.

        Raises
        ------
        FeatvizError
            If there is no decoder.
        """
        if self.decoder is None:
            raise FeatvizError("this dictionary has no decoder")
        total = codes @ self.decoder
        return total if self.offset is None else total + self.offset

    def attach(self, model: Model, layer: str | None = None, *, name: str = "dictionary") -> Model:
        """Return a model with the codes as a layer of its own, ``LAYER.NAME``.

        The network's weights are shared, and the network is left as it is. The new layer is like
        any other: ``channel:_blocks.10.dictionary:7``.

        Parameters
        ----------
        model
            The model.
        layer
            The layer whose activations are encoded: by default the one that the dictionary names.
        name
            What the new layer is called, below the old one.

        Raises
        ------
        FeatvizError
            If no layer is known, the layer has another number of units, or its activations are not
            what its module returns.
        """
        from featviz.networks.dictionaries.attaching import attach

        return attach(model, self, layer, name)

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file, atomically; :func:`featviz.Dictionary.load` reads it."""
        from featviz.networks.dictionaries.dictionary_files import write

        return write(self, path)

    @classmethod
    def load(cls, path: str | Path, **given: Any) -> Dictionary:
        """Read a safetensors file with a dictionary: our own, or one by the usual names.

        Those are ``W_enc``, ``b_enc``, ``W_dec``, ``b_dec``, ``threshold``, and ``encoder.weight``,
        ``encoder.bias``, ``decoder.weight``, ``decoder.bias``. Matrices may have either layout.

        Parameters
        ----------
        path
            The file.
        **given
            What a foreign file does not say: ``centered`` (whether ``b_dec`` is subtracted from
            activations before they are encoded), ``nonlinearity``, ``layer``.

        Raises
        ------
        FeatvizError
            If the file cannot be read, its shapes do not fit, or it does not say what is needed.
        """
        from featviz.networks.dictionaries.dictionary_files import read

        return read(path, **given)


def _above(values: Tensor, threshold: Tensor) -> Tensor:
    """Return the values above a threshold as they are, and zero for the others.

    By a ReLU, so that a redirected one leads features that are off to where they are on.
    """
    return (values - threshold).relu() + threshold * (values > threshold)


def _matrix(encoder: Any) -> tuple[int, int]:
    if not isinstance(encoder, torch.Tensor) or encoder.ndim != 2 or not encoder.numel():
        shape = tuple(getattr(encoder, "shape", ()))
        raise FeatvizError(f"encoder must be a matrix (features, units), not {shape}")
    return encoder.shape[0], encoder.shape[1]


def _checked(name: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    found = tuple(getattr(value, "shape", ()))
    if not isinstance(value, torch.Tensor) or found != shape:
        raise FeatvizError(f"{name} must have shape {shape}, not {found}")
    if not value.is_floating_point() or not value.isfinite().all():
        raise FeatvizError(f"{name} must be finite floating-point numbers")
    return value.detach().clone().float().contiguous()


def _check_nonlinearity(name: str, thresholds: bool, features: int) -> int | None:
    """Return K of ``topk:K``, or None."""
    match = re.fullmatch(r"topk:([1-9]\d{0,8})", str(name))
    if match is None and name not in ("relu", "identity", "jumprelu"):
        raise FeatvizError(f"no nonlinearity {name!r}: use {', '.join(NONLINEARITIES)}")
    if thresholds != (name == "jumprelu"):
        problem = "has no use for a threshold" if thresholds else "needs a threshold"
        raise FeatvizError(f"nonlinearity {name!r} {problem}")
    if match is None:
        return None
    if int(match[1]) > features:
        raise FeatvizError(f"nonlinearity {name!r}: there are {features} features")
    return int(match[1])
