"""Numbers that are too many for the text of an objective: files, and arrays of this process.

The text of a small vector is the vector. A larger array, an image, or anything with more than
one axis is named by its content, ``array:3f0c…``, which this process can read back for as long
as some objective holds it; a file name can be read anywhere.
"""

from __future__ import annotations

import hashlib
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featviz.errors import UnitError

_PREFIX = "array:"
#: Longer vectors are named by their content.
_INLINE = 4096


class Kept(str):
    """The name of an array, which keeps the array alive."""

    array: np.ndarray

    def __reduce__(self) -> Any:
        return _name, (self.array,)


_kept: weakref.WeakValueDictionary[str, Kept] = weakref.WeakValueDictionary()


def keep(values: Any, what: str) -> str | tuple[float, ...]:
    """Return the text field of numbers or a file: a short vector itself, or a name.

    Raises
    ------
    UnitError
        If ``values`` is neither, or not finite.
    """
    if isinstance(values, (str, Path)):
        return recall(str(values))
    array = _finite(values, what)
    if array.ndim == 1 and len(array) <= _INLINE:
        return tuple(array.tolist())
    return _name(array)


def keep_name(values: Any, what: str) -> str:
    """Return the name of a file or, whatever their shape, of numbers; raises as :func:`keep`."""
    if isinstance(values, (str, Path)):
        return recall(str(values))
    return _name(_finite(values, what))


def _finite(values: Any, what: str) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise UnitError(f"{what} must be numbers or a file, not {type(values).__name__}") from None
    if not array.size or not np.isfinite(array).all():
        raise UnitError(f"{what} must be finite numbers, not shape {array.shape}")
    return array


def _name(values: np.ndarray) -> Kept:
    array = np.ascontiguousarray(values, dtype=np.float32)
    digest = hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()
    name = _PREFIX + digest[:24]
    kept = _kept.get(name)
    if kept is None:
        kept = Kept(name)  # a str() of it would be a plain string, and let go of the array
        kept.array = array
        _kept[name] = kept
    return kept


def recall(name: str) -> str:
    """Return ``name``, as the kept one where it names an array that is alive."""
    return _kept.get(name, name)


def load(source: str | tuple[float, ...]) -> np.ndarray:
    """Return the numbers: of a vector, a kept array, an ``.npy`` or a ``.safetensors`` file.

    ``file.safetensors#W_dec`` picks a tensor of several, ``#W_dec[17]`` or ``file.npy#[17]`` a
    row of it: a feature of a sparse autoencoder's decoder, a component of an NMF.

    Raises
    ------
    UnitError
        If the file cannot be read, or has no such tensor or row.
    """
    if isinstance(source, tuple):
        return np.asarray(source, dtype=np.float64)
    if source in _kept:
        return _kept[source].array
    if source.startswith(_PREFIX):
        raise UnitError(f"{source} belongs to another process: save the array to an .npy file")
    path, _, pick = source.partition("#")
    match = re.fullmatch(r"([^\[\]]*)(?:\[(\d+)\])?", pick)
    if match is None:
        raise UnitError(f"cannot read {source!r}: write file#tensor[row]")
    array = _read(path, match[1])
    if match[2] is not None:
        row = int(match[2])
        if array.ndim < 2 or row >= len(array):
            raise UnitError(f"no row {row} in {path!r}: its shape is {array.shape}")
        array = array[row]
    if not np.issubdtype(array.dtype, np.number):
        raise UnitError(f"{path!r} holds {array.dtype}, not numbers")
    return array


def _read(path: str, key: str) -> np.ndarray:
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            tensors = load_file(path)
            if not key and len(tensors) == 1:
                key = next(iter(tensors))
            if key not in tensors:
                known = ", ".join(sorted(tensors)[:8])
                raise UnitError(f"no tensor {key!r} in {path!r}: pick {path}#NAME of {known}")
            return tensors[key].float().numpy()
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, UnitError):
            raise
        reason = " ".join(str(error).split())[:120]
        raise UnitError(f"cannot read {path!r}: {reason}") from error
    except Exception as error:  # safetensors raises a class of its own
        if type(error).__name__ != "SafetensorError":
            raise
        raise UnitError(f"cannot read {path!r}: {error}") from error
    if not isinstance(array, np.ndarray):
        raise UnitError(f"cannot read {path!r}: it holds several arrays; save the one you mean")
    return array
