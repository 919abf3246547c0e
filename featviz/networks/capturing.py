"""Capture the activations of layers by name, leaving no trace in the network.

What is captured is the tensor that the network goes on with, so that later layers have gradients
with respect to it. Where the network modifies that tensor in place (``x += shortcut``), it goes on
with a copy.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from featviz.errors import LayerError
from featviz.networks.layers import (
    GIVEN,
    INPUT,
    OUTPUT,
    LayerTable,
    inputs_of,
    listed,
    module_names,
    split_address,
    tensors_in,
)
from featviz.types import Tensor


class _StopForward(BaseException):
    """Ends a forward pass; not an Exception, so that the network's own code cannot catch it."""


@dataclasses.dataclass
class _Capture:
    """The state of one pass.

    ``requests`` has the names and paths that are due, by module and by number of its call;
    ``versions`` the version counters of the captured tensors, which in-place operations raise.
    """

    requests: dict[str, dict[int, list[tuple[str, str]]]]
    missing: int
    to_the_end: bool
    overwritten: frozenset[str]
    activations: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    versions: dict[str, tuple[Tensor, int]] = dataclasses.field(default_factory=dict)

    def hook(self, calls: Mapping[int, list[tuple[str, str]]]) -> Callable[..., Any]:
        """Return the forward hook of a module with requests, by number of its call."""
        turn = self._turns(calls)

        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            due, last = turn()
            for name, path in due:
                output = self._take(name, path, output, (args, kwargs), last)
            if last:
                raise _StopForward
            return output

        return hook

    def pre_hook(self, calls: Mapping[int, list[tuple[str, str]]]) -> Callable[..., None]:
        """Return the forward pre-hook of a module whose inputs are requested."""
        turn = self._turns(calls)

        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            due, last = turn()
            for name, path in due:
                # What it was given belongs to others: a copy, if any, is on a branch of its own.
                given = inputs_of(args, kwargs)
                self._take(name, path, given, given, last)
            if last:
                raise _StopForward

        return hook

    def _turns(
        self, calls: Mapping[int, list[tuple[str, str]]]
    ) -> Callable[[], tuple[Sequence[tuple[str, str]], bool]]:
        """Return what to call at each call of a module: what is due, and whether all is known."""
        numbers = itertools.count()

        def turn() -> tuple[Sequence[tuple[str, str]], bool]:
            due = calls.get(next(numbers), ())
            self.missing -= len(due)
            return due, bool(due) and not self.missing and not self.to_the_end

        return turn

    def _take(self, name: str, path: str, output: Any, inputs: Any, last: bool) -> Any:
        """Record an activation; return what the network goes on with."""
        tensor = _select(output, path, name)
        flat = tensor.ndim == 1
        activation = tensor[:, None] if flat else tensor
        self.activations[name] = activation
        if last or tensor.is_inference():
            self.activations[name] = activation if last else activation.clone()
            return output
        if name in self.overwritten:
            # A part of the input that is returned (a view, ReLU in place) belongs to others, too:
            # the network has to go on with it, and the copy is on a branch of its own.
            branch = _shares_storage(tensor, inputs)
            copied = None if branch else _replaced(output, path, tensor.clone())
            if copied is None:
                self.activations[name] = activation.clone()
                return output
            return copied
        self.versions[name] = (tensor, tensor._version)
        if flat and not _shares_storage(tensor, inputs):
            replaced = _replaced(output, path, activation[:, 0])
            return output if replaced is None else replaced
        return output

    @property
    def changed(self) -> frozenset[str]:
        """The names of captured tensors that were modified in place, against expectation."""
        pairs = self.versions.items()
        return frozenset(name for name, (tensor, version) in pairs if tensor._version != version)


def capture(
    net: nn.Module,
    run: Callable[[], Any],
    images: Tensor,
    names: Iterable[str],
    table: LayerTable,
    overwritten: frozenset[str] = frozenset(),
) -> dict[str, Tensor]:
    """Run the network as far as needed and return the activations called ``names``.

    The pass ends as soon as the last of them is known. Activations are what the layer returned,
    even if a later operation modifies them in place. Hooks are registered on the named modules
    only, and are removed when this returns or raises.

    ``overwritten`` adds to the layers that ``table`` lists as modified in place. A part of a
    module's own input that it returns, and that is modified later, has no gradient to later layers.

    Raises
    ------
    LayerError
        If a layer of ``names`` is not in ``table`` or does not run for these images.
    """
    names = tuple(dict.fromkeys(names))
    requests: dict[str, dict[int, list[tuple[str, str]]]] = {}
    outputs: list[str] = []
    missing = 0
    modified = set(overwritten)
    activations: dict[str, Tensor] = {}
    for name in names:
        module, call, path = split_address(name)
        if module == INPUT:
            activations[name] = images
        elif module == OUTPUT:
            outputs.append(name)
        else:
            info = table.find(name)
            number = info.calls - 1 if call is None else call
            requests.setdefault(module, {}).setdefault(number, []).append((name, path))
            missing += 1
            modified |= {name} if info.overwritten else set()
    if not missing and not outputs:
        return activations
    state = _Capture(requests, missing, bool(outputs), frozenset(modified), activations)
    modules = module_names(net)
    handles = []
    for module, calls in requests.items():
        if module in modules:
            hook = modules[module].register_forward_hook(state.hook(calls), with_kwargs=True)
        else:
            given = modules[module.removesuffix(GIVEN)]
            hook = given.register_forward_pre_hook(state.pre_hook(calls), with_kwargs=True)
        handles.append(hook)
    try:
        output = run()
        for name in outputs:
            tensor = _select(output, split_address(name)[2], name)
            activations[name] = tensor[:, None] if tensor.ndim == 1 else tensor
    except _StopForward:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if state.changed - overwritten:  # not so in the probing pass: once more, with copies
        return capture(net, run, images, names, table, overwritten | state.changed)
    for calls in requests.values():
        for name, _ in (pair for pairs in calls.values() for pair in pairs):
            if name not in activations:
                raise LayerError(f"layer {name!r} did not run for this input")
    return activations


def _select(value: Any, path: str, name: str) -> Tensor:
    for item_path, tensor in tensors_in(value):
        if item_path == path:
            if tensor.ndim == 0:
                raise LayerError(f"layer {name!r} returned one number for the whole batch")
            return tensor
    choices = [name[: len(name) - len(path)] + item_path for item_path, _ in tensors_in(value)]
    raise LayerError(f"layer {name!r} returned no tensor there: pick one of {listed(choices)}")


def _shares_storage(tensor: Tensor, inputs: Any) -> bool:
    address = tensor.untyped_storage()._cdata
    return any(t.untyped_storage()._cdata == address for _, t in tensors_in(inputs))


def _replaced(value: Any, path: str, tensor: Tensor) -> Any:
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
        item = _replaced(value[actual], rest, tensor)
        duplicate: Any = copy.copy(value)
        try:
            duplicate[actual] = item
        except TypeError:
            return None
        return None if item is None else duplicate
    if isinstance(value, (tuple, list)):
        items = list(value)
        items[int(key)] = _replaced(items[int(key)], rest, tensor)
        if items[int(key)] is None:
            return None
        if hasattr(value, "_fields"):
            return type(value)(*items)
        return type(value)(items) if type(value) in (tuple, list) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        item = _replaced(getattr(value, key), rest, tensor)
        duplicate = copy.copy(value)
        try:
            setattr(duplicate, key, item)
        except dataclasses.FrozenInstanceError:
            return None
        return None if item is None else duplicate
    return None


__all__ = ["capture"]
