"""Tensors inside what a module returns or is given: picked by path, and replaced."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from featviz.errors import LayerError
from featviz.networks.layers import listed, tensors_in
from featviz.types import Tensor


def select(value: Any, path: str, name: str) -> Tensor:
    """Return the tensor at ``path`` in nested outputs; ``name`` is the layer's, for the error.

    Raises
    ------
    LayerError
        If there is none, or if it is a single number.
    """
    for item_path, tensor in tensors_in(value):
        if item_path == path:
            if tensor.ndim == 0:
                raise LayerError(f"layer {name!r} returned one number for the whole batch")
            return tensor
    choices = [name[: len(name) - len(path)] + item_path for item_path, _ in tensors_in(value)]
    raise LayerError(f"layer {name!r} returned no tensor there: pick one of {listed(choices)}")


def shares_storage(tensor: Tensor, inputs: Any) -> bool:
    """Return whether a tensor is, or is a view of, one of those in ``inputs``."""
    address = tensor.untyped_storage()._cdata
    return any(t.untyped_storage()._cdata == address for _, t in tensors_in(inputs))


def with_replaced(value: Any, path: str, tensor: Tensor) -> Any:
    """Return nested outputs with the tensor at ``path`` replaced; None if they are of other kinds.

    The containers are copied, since the network may have kept them.
    """
    if not path:
        return tensor
    key, _, rest = path[1:].partition("]")
    if isinstance(value, Mapping):
        actual = next((k for k in value if str(k) == key), None)
        if actual is None:
            return None
        item = with_replaced(value[actual], rest, tensor)
        duplicate: Any = copy.copy(value)
        try:
            duplicate[actual] = item
        except TypeError:
            return None
        return None if item is None else duplicate
    if isinstance(value, (tuple, list)):
        items = list(value)
        items[int(key)] = with_replaced(items[int(key)], rest, tensor)
        if items[int(key)] is None:
            return None
        if hasattr(value, "_fields"):
            return type(value)(*items)
        return type(value)(items) if type(value) in (tuple, list) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        item = with_replaced(getattr(value, key), rest, tensor)
        duplicate = copy.copy(value)
        try:
            setattr(duplicate, key, item)
        except dataclasses.FrozenInstanceError:
            return None
        return None if item is None else duplicate
    return None


__all__ = ["select", "shares_storage", "with_replaced"]
