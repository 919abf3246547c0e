"""Arrays in the text of objectives: inline vectors, files, and arrays held by this process.

The text of a short vector is the vector itself. A longer one, an image, or any array with more
than one axis is named by a hash of its content, ``array:3f0c…``, which this process can read back
for as long as some objective holds the array; a file name can be read by any process.
"""

from __future__ import annotations

import hashlib
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featviz.errors import FeatvizError, UnitError, shorten
from featviz.io.files import check_readable

_PREFIX = "array:"
#: Longest vector that is written out in the text.
_MAX_INLINE = 4096


class NamedArray(str):
    """The name of an array, which keeps the array alive."""

    array: np.ndarray

    def __reduce__(self) -> Any:
        return _name_array, (self.array,)


_live_arrays: weakref.WeakValueDictionary[str, NamedArray] = weakref.WeakValueDictionary()


def register(values: Any, what: str) -> str | tuple[float, ...]:
    """Return the form of an array or file in the text of an objective: a short vector, or a name.

    Raises
    ------
    UnitError
        If ``values`` are neither numbers nor a file name, or are not finite.
    """
    if isinstance(values, (str, Path)):
        return recall(str(values))
    array = _finite_array(values, what)
    if array.ndim == 1 and len(array) <= _MAX_INLINE:
        return tuple(array.tolist())
    return _name_array(array)


def register_name(values: Any, what: str) -> str:
    """Return the name of a file or, whatever its shape, an array; raise as :func:`register`."""
    if isinstance(values, (str, Path)):
        return recall(str(values))
    return _name_array(_finite_array(values, what))


def _finite_array(values: Any, what: str) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        dense = values.detach().cpu().to_dense()
        values = (dense if dense.is_complex() else dense.double()).numpy()
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise UnitError(f"{what} must be numbers or a file, not {type(values).__name__}") from None
    if not array.size or not np.isfinite(array).all():
        raise UnitError(f"{what} must be finite numbers, not shape {array.shape}")
    return array


def _name_array(values: np.ndarray) -> NamedArray:
    array = np.ascontiguousarray(values, dtype=np.float32)
    digest = hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()
    name = _PREFIX + digest[:24]
    named = _live_arrays.get(name)
    if named is None:
        named = NamedArray(name)  # str() would return a plain string, which does not hold the array
        named.array = array
        _live_arrays[name] = named
    return named


def recall(name: str) -> str:
    """Return ``name``, as its :class:`NamedArray` if it names an array that is alive."""
    return _live_arrays.get(name, name)


def load(source: str | tuple[float, ...]) -> np.ndarray:
    """Return the numbers of a vector, a named array, an ``.npy`` or a ``.safetensors`` file.

    ``file.safetensors#W_dec`` selects one of several tensors, ``#W_dec[17]`` or ``file.npy#[17]``
    one row of an array: a feature of a sparse autoencoder's decoder, a component of an NMF.

    Raises
    ------
    UnitError
        If the file cannot be read, or has no such tensor or row.
    """
    if isinstance(source, tuple):
        return np.asarray(source, dtype=np.float64)
    if source in _live_arrays:
        return _live_arrays[source].array
    if source.startswith(_PREFIX):
        raise UnitError(f"{source} belongs to another process: save the array to an .npy file")
    path, _, selector = source.partition("#")
    match = re.fullmatch(r"([^\[\]]*)(?:\[(\d+)\])?", selector)
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
        check_readable(path)
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            tensors = load_file(path)
            if not key and len(tensors) == 1:
                key = next(iter(tensors))
            if key not in tensors:
                known = ", ".join(sorted(tensors)[:8])
                raise UnitError(
                    f"no tensor {key!r} in {path!r}: select one with {path}#NAME: {known}"
                )
            return tensors[key].float().numpy()
        # Mapped first: a header of more numbers than the file holds is then refused, not allocated.
        array = np.load(path, allow_pickle=False, mmap_mode="r")
        array = np.array(array) if isinstance(array, np.ndarray) else array
    except UnitError:
        raise
    except FeatvizError as error:  # the message has the path
        raise UnitError(str(error)) from error
    except Exception as error:  # a damaged header can fail in any way
        raise UnitError(f"cannot read {path!r}: {shorten(str(error))}") from error
    if not isinstance(array, np.ndarray):
        raise UnitError(f"cannot read {path!r}: it holds several arrays; save a single one")
    return array
