"""Find which layers' outputs a network modifies in place after the layer returned them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from featviz.networks.dispatch import DispatchMode
from featviz.types import Tensor


class WriteTracker(DispatchMode):
    """Record which of the watched tensors are written to, through any of their views.

    ``overwritten`` has the keys that :meth:`watch` was given with these tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.overwritten: set[Any] = set()
        #: By address of the storage; a weak reference keeps it from being reused.
        self._watched: dict[int, tuple[StorageWeakRef, list[Any]]] = {}

    def watch(self, key: Any, tensor: Tensor) -> None:
        """Watch a tensor from now on."""
        reference = StorageWeakRef(tensor.untyped_storage())
        self._watched.setdefault(reference.cdata, (reference, []))[1].append(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in _written(func, args, kwargs):
            if self._watched:
                address = StorageWeakRef(tensor.untyped_storage()).cdata
                self.overwritten.update(self._watched.get(address, (None, ()))[1])
        return func(*args, **kwargs)


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the tensors that an operation writes to, as its schema says."""
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[index] if index < len(args) else kwargs.get(argument.name)
        for tensor in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(tensor, torch.Tensor):
                yield tensor
