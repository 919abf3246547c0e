"""User-defined functions as objectives, for what the language cannot express."""

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


class _NamedFunction(str):
    """The name of a function, which keeps the function alive."""

    function: Callable[..., Tensor]

    def __reduce__(self) -> Any:
        return _register, (self.function,)


_live_functions: weakref.WeakValueDictionary[str, _NamedFunction] = weakref.WeakValueDictionary()


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
        named = _live_functions.get(self.name)
        if named is None:
            raise UnitError(
                f"function {self.name!r} belongs to another process: create it with fv.function"
            )
        for name in self.of:
            target.layer(name)

        def score(scene: Scene) -> Tensor:
            value = named.function(*(scene[name] for name in self.of))
            if not isinstance(value, torch.Tensor) or value.shape != (len(scene.images),):
                shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value)
                raise UnitError(
                    f"function {self.name!r} returned {shape}: it must return one value "
                    f"per sample, shape ({len(scene.images)},)"
                )
            return value

        return score


def function(function: Callable[..., Tensor], *layers: str) -> Objective:
    """Return a function of activations as an objective, with the algebra and text of any other.

    ``function`` receives the activation (B, …) of each of ``layers`` (``image`` is the image,
    ``output[boxes]`` an item of the output) and returns (B,), differentiable::

        fv.function(lambda boxes: boxes[:, :, 4].amax(1), "output[boxes]") - 1e-3 * fv.l1()

    Its text contains its name, which this process can parse while some objective holds the
    function.

    Raises
    ------
    UnitError
        If it is not callable or no layer is named; when used, if its value is not (B,).
    """
    if not callable(function):
        raise UnitError(f"expected a function of activations, not {type(function).__name__}")
    if not layers:
        raise UnitError("name the layers whose activations the function receives, such as 'output'")
    return Function(_register(function), tuple(str(layer) for layer in layers))


def _register(function: Callable[..., Tensor]) -> _NamedFunction:
    module: Any = getattr(function, "__module__", "")
    label = getattr(function, "__qualname__", type(function).__name__)
    name = f"{module}.{label}"
    named = _live_functions.get(name)
    if named is not None and named.function is not function:  # lambdas share a name
        name = f"{name}#{id(function):x}"
        named = _live_functions.get(name)
    if named is None:
        named = _NamedFunction(name)
        named.function = function
        _live_functions[name] = named
    return named


def recall(name: str) -> str:
    """Return ``name``, in the form that holds the function, if it names one that is alive."""
    return _live_functions.get(name, name)
