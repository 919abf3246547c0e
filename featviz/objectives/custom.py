"""A function of the user's own as an objective: whatever the language has no word for."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any

import torch

from featviz.errors import UnitError
from featviz.objectives.base import Objective
from featviz.objectives.scene import IMAGE, Scene, Score, Target
from featviz.objectives.unit import Unit, quoted, words
from featviz.types import Tensor


class _Named(str):
    """The name of a function, which keeps the function alive."""

    function: Callable[..., Tensor]

    def __reduce__(self) -> Any:
        return _keep, (self.function,)


_named: weakref.WeakValueDictionary[str, _Named] = weakref.WeakValueDictionary()


@dataclasses.dataclass(frozen=True, repr=False)
class Function(Unit):
    """See :func:`function`."""

    kind = "function"
    name: str = quoted()
    of: tuple[str, ...] = words()

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(sorted({name for name in self.of if name != IMAGE}))

    def bind(self, target: Target) -> Score:
        known = _named.get(self.name)
        if known is None:
            raise UnitError(
                f"function {self.name!r} belongs to another process: make it with fv.function"
            )
        for name in self.of:
            target.layer(name)

        def score(scene: Scene) -> Tensor:
            value = known.function(*(scene[name] for name in self.of))
            if not isinstance(value, torch.Tensor) or value.shape != (len(scene.images),):
                shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value)
                raise UnitError(
                    f"function {self.name!r} returned {shape}: it must return one value a "
                    f"sample, shape ({len(scene.images)},)"
                )
            return value

        return score


def function(function: Callable[..., Tensor], *layers: str) -> Objective:
    """Return a function of activations as an objective, with an algebra and a text like all.

    ``function`` gets the activation (B, …) of each of ``layers`` (``image`` is the image,
    ``output[boxes]`` an item of the output) and returns (B,), differentiable::

        fv.function(lambda boxes: boxes[:, :, 4].amax(1), "output[boxes]") - 1e-3 * fv.l1()

    Its text names it, and this process reads that back while some objective holds the function.

    Raises
    ------
    UnitError
        If it is not callable or names no layer; when it is used, if its value is not (B,).
    """
    if not callable(function):
        raise UnitError(f"expected a function of activations, not {type(function).__name__}")
    if not layers:
        raise UnitError("name the layers whose activations the function gets, such as 'output'")
    return Function(_keep(function), tuple(str(layer) for layer in layers))


def _keep(function: Callable[..., Tensor]) -> _Named:
    module: Any = getattr(function, "__module__", "")
    label = getattr(function, "__qualname__", type(function).__name__)
    name = f"{module}.{label}"
    known = _named.get(name)
    if known is not None and known.function is not function:  # lambdas share a name
        name = f"{name}#{id(function):x}"
        known = _named.get(name)
    if known is None:
        known = _Named(name)
        known.function = function
        _named[name] = known
    return known


def recall(name: str) -> str:
    """Return ``name``, as the kept one where it names a function that is alive."""
    return _named.get(name, name)
