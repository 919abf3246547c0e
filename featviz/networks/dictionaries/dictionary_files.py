"""Dictionaries in safetensors files: featviz's own, and those of other libraries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featviz.errors import FeatvizError, shorten
from featviz.io.files import write_bytes
from featviz.networks.dictionaries.dictionary import Dictionary
from featviz.types import Tensor

_FORMAT = "featviz dictionary 1"
_OWN = ("encoder", "decoder", "bias", "center", "offset", "threshold")
#: Names of other libraries for each part: SAELens, dictionary_learning, OpenAI's autoencoders.
_FOREIGN = {
    "encoder": ("W_enc", "encoder.weight"),
    "decoder": ("W_dec", "decoder.weight"),
    "bias": ("b_enc", "encoder.bias", "latent_bias"),
    "offset": ("b_dec", "decoder.bias", "bias", "pre_bias"),
    "threshold": ("threshold",),
    "k": ("k",),
}
#: Offsets that are subtracted before encoding, in every library that calls them so.
_CENTERS = ("bias", "pre_bias")
#: What training leaves in a file and encoding does not need.
_IGNORED = ("stats_last_nonzero", "num_tokens_since_fired", "step")
#: Matrices that are (features, units) where nothing else tells: weights of ``nn.Linear`` are
#: (outputs, inputs), the others are multiplied from the right.
_BY_ROWS = {"W_dec", "encoder.weight"}


def write(dictionary: Dictionary, path: str | Path) -> Path:
    """Write a dictionary with its nonlinearity, layer and notes."""
    from safetensors.torch import save

    tensors = {
        name: tensor.cpu() for name in _OWN if (tensor := getattr(dictionary, name)) is not None
    }
    metadata = {
        "format": _FORMAT,
        "nonlinearity": dictionary.nonlinearity,
        "layer": dictionary.layer or "",
        "notes": json.dumps(dictionary.notes),
    }
    return write_bytes(path, save(tensors, metadata))


def read(
    path: str | Path,
    *,
    centered: bool | None = None,
    nonlinearity: str | None = None,
    layer: str | None = None,
) -> Dictionary:
    """Read a dictionary; see :meth:`Dictionary.load`."""
    tensors, metadata = _contents(path)
    try:
        if metadata.get("format") == _FORMAT:
            if centered is not None:
                raise FeatvizError("centered= is for files of other libraries")
            return Dictionary(
                tensors.pop("encoder"),
                **{name: tensors.get(name) for name in _OWN[1:]},
                nonlinearity=nonlinearity or metadata["nonlinearity"],
                layer=layer or metadata["layer"] or None,
                notes=_notes(metadata.get("notes", "{}")),
            )
        return _foreign(tensors, centered, nonlinearity, layer)
    except KeyError as error:
        raise FeatvizError(f"dictionary {shorten(repr(str(path)))} lacks {error}") from None
    except FeatvizError as error:
        raise FeatvizError(f"dictionary {shorten(repr(str(path)))}: {error}") from error


def _notes(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FeatvizError("its notes are damaged")
    return found


def _contents(path: str | Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FeatvizError(f"no file {shorten(repr(str(path)))}: give a .safetensors file")
    try:
        with safe_open(str(path), "pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        name = shorten(repr(str(path)))
        raise FeatvizError(f"cannot read dictionary {name}: {reason}") from error


def _foreign(
    tensors: dict[str, Tensor], centered: bool | None, nonlinearity: str | None, layer: str | None
) -> Dictionary:
    named: dict[str, str] = {}
    rest = set(tensors) - set(_IGNORED)
    for part, names in _FOREIGN.items():
        found = [name for name in names if name in tensors]
        if len(found) > 1:
            raise FeatvizError(f"{' and '.join(found)} are both the {part}: keep one of them")
        named |= dict.fromkeys([part], *found) if found else {}
        rest -= set(found)
    if "encoder" not in named:
        known = " or ".join(_FOREIGN["encoder"])
        given = shorten(", ".join(sorted(tensors)) or "nothing")
        raise FeatvizError(f"no {known} among its tensors: {given}")
    if rest:
        raise FeatvizError(
            f"it is not known what its tensors {shorten(', '.join(sorted(rest)))} do: remove them "
            "if they are not needed, or make a fv.Dictionary of its parts"
        )
    parts = {part: tensors[name] for part, name in named.items()}
    bias, offset, threshold = (parts.get(name) for name in ("bias", "offset", "threshold"))
    # A bias tells the number of features; without one the names tell the layout.
    features = None if bias is None else len(bias)
    encoder = _rows(parts["encoder"], features, named["encoder"] in _BY_ROWS)
    decoder = parts.get("decoder")
    if decoder is not None:
        decoder = _rows(decoder, len(encoder), named["decoder"] in _BY_ROWS)
    if centered is None and offset is not None:
        if named["offset"] in _CENTERS:
            centered = True
        elif offset.any():
            raise FeatvizError(
                f"it does not say whether {named['offset']} is subtracted before encoding: give "
                "centered=True or centered=False, and save it"
            )
    return Dictionary(
        encoder,
        decoder,
        bias=bias,
        center=offset if centered else None,
        offset=offset,
        nonlinearity=nonlinearity or _nonlinearity(threshold, parts.get("k")),
        threshold=threshold,
        layer=layer,
    )


def _nonlinearity(threshold: Tensor | None, k: Tensor | None) -> str:
    if k is None:
        return "relu" if threshold is None else "jumprelu"
    if k.numel() != 1 or threshold is not None:
        raise FeatvizError("its k and threshold do not say what they do: give nonlinearity=")
    return f"topk:{int(k)}"


def _rows(matrix: Tensor, features: int | None, by_rows: bool) -> Tensor:
    """Return a matrix as (features, units)."""
    if matrix.ndim != 2:
        raise FeatvizError(f"a matrix has shape {tuple(matrix.shape)}")
    if features is not None and features in matrix.shape and matrix.shape[0] != matrix.shape[1]:
        by_rows = matrix.shape[0] == features
    return matrix if by_rows else matrix.T
