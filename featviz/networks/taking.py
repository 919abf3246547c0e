"""The state of a pass in which the activations of layers are taken: what is due, and its hooks."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from featviz.networks.attention import PatternTaker, by_head
from featviz.networks.layers import inputs_of
from featviz.networks.nested import select, shares_storage, with_replaced
from featviz.networks.windows import Windows
from featviz.types import Tensor


class StopForward(BaseException):
    """Ends a forward pass; not an Exception, so that the network's own code cannot catch it."""


@dataclasses.dataclass
class Capture:
    """The state of one pass.

    ``missing`` counts the activations that are not known yet; ``batch`` is the number of images;
    ``versions`` has the version counters of the captured tensors, which in-place operations raise.
    """

    missing: int
    to_the_end: bool
    overwritten: frozenset[str]
    batch: int
    activations: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    versions: dict[str, tuple[Tensor, int]] = dataclasses.field(default_factory=dict)
    #: Of the modules that are running and whose attention patterns are due: what is due by number
    #: of the pattern, and the numbers.
    attending: list[tuple[dict[int, list[str]], Iterator[int]]] = dataclasses.field(
        default_factory=list
    )

    def hook(
        self, calls: Mapping[int, list[tuple[str, str]]], windows: Windows | None = None
    ) -> Callable[..., Any]:
        """Return the forward hook of a module with requests, by number of its call.

        With ``windows``, what is requested is the map of what it returns.
        """
        turn = self._turns(calls)

        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            due, last = turn()
            for name, path in due:
                if windows is None:
                    output = self._take(name, path, output, (args, kwargs), last)
                else:
                    maps = windows.regroup(output, self.batch)
                    output = windows.back(output, self._take(name, "", maps, (), last))
            if last:
                raise StopForward
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
                raise StopForward

        return hook

    def around(
        self, calls: Mapping[int, list[tuple[str, str]]], taker: PatternTaker
    ) -> tuple[Callable[..., None], Callable[..., None]]:
        """Return the hooks before and after a module whose attention patterns are requested."""
        numbers = itertools.count()

        def begin(module: nn.Module, args: Any) -> None:
            due: dict[int, list[str]] = {}
            for name, path in calls.get(next(numbers), ()):
                due.setdefault(int(path.strip("[]") or 0), []).append(name)
            self.attending.append((due, itertools.count()))
            taker.open += 1

        def end(module: nn.Module, args: Any, output: Any) -> None:
            self.attending.pop()
            taker.open -= 1

        return begin, end

    def pattern(self, pattern: Tensor) -> Tensor:
        """Record an attention pattern where it is due; return what the network goes on with."""
        for due, numbers in self.attending:
            for name in due.get(next(numbers), ()):
                self.missing -= 1
                last = not self.missing and not self.to_the_end
                by_heads = pattern.reshape(by_head(tuple(pattern.shape), self.batch))
                pattern = self._take(name, "", by_heads, (), last).reshape(pattern.shape)
                if last:
                    raise StopForward
        return pattern

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
        tensor = select(output, path, name)
        flat = tensor.ndim == 1
        activation = tensor[:, None] if flat else tensor
        self.activations[name] = activation
        if last or tensor.is_inference():
            self.activations[name] = activation if last else activation.clone()
            return output
        if name in self.overwritten:
            # A part of the input that is returned (a view, ReLU in place) belongs to others, too:
            # the network has to go on with it, and the copy is on a branch of its own.
            branch = shares_storage(tensor, inputs)
            copied = None if branch else with_replaced(output, path, tensor.clone())
            if copied is None:
                self.activations[name] = activation.clone()
                return output
            return copied
        self.versions[name] = (tensor, tensor._version)
        if flat and not shares_storage(tensor, inputs):
            replaced = with_replaced(output, path, activation[:, 0])
            return output if replaced is None else replaced
        return output

    @property
    def changed(self) -> frozenset[str]:
        """The names of captured tensors that were modified in place, against expectation."""
        pairs = self.versions.items()
        return frozenset(name for name, (tensor, version) in pairs if tensor._version != version)


__all__ = ["Capture", "StopForward"]
