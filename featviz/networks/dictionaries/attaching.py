"""Attach a dictionary to a layer, in a network that shares the weights of the given one."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from featviz.errors import FeatvizError, ModelError
from featviz.networks.dictionaries.dictionary import Dictionary
from featviz.networks.layers import module_names, tensors_in
from featviz.networks.model import Model
from featviz.types import Tensor

#: Tables of a module that a copy must not share with the original.
_TABLES = ("_modules", "_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks")


class Codes(nn.Module):
    """The codes of a dictionary along any axis of an activation."""

    def __init__(self, dictionary: Dictionary, axis: int) -> None:
        super().__init__()
        self.dictionary, self.axis = dictionary, axis

    def forward(self, activations: Tensor) -> Tensor:
        rows = activations.movedim(self.axis, -1).to(self.dictionary.encoder.dtype)
        return self.dictionary(rows).movedim(-1, self.axis)


def attach(model: Model, dictionary: Dictionary, layer: str | None, name: str) -> Model:
    """Return a model with the codes as a layer; see :meth:`Dictionary.attach`."""
    layer = layer or dictionary.layer
    if not layer:
        raise FeatvizError("the dictionary does not say which layer it is of: give the layer")
    if not isinstance(name, str) or not name.isidentifier():
        raise FeatvizError(f"name must be a word, not {name!r}")
    info = model.layer(layer)
    modules = module_names(model.net)
    if layer not in modules:
        raise FeatvizError(f"a dictionary encodes what one module returns, not {layer!r}")
    if info.units != dictionary.units:
        raise FeatvizError(
            f"layer {layer!r} has {info.units} units, the dictionary {dictionary.units}"
        )
    old = modules[layer]
    if hasattr(old, name):
        raise FeatvizError(f"layer {layer!r} has a {name!r} already: give another name")
    own = copy.deepcopy(dictionary).to(model.device).eval()  # the caller's stays where it is
    codes = Codes(own, info.axis)
    new = _observed(old, name, codes)
    attached = model._around(_replaced(model.net, old, new, {}))
    attached.axes = {**model.axes, f"{layer}.{name}": info.axis}
    attached.name = None
    attached._tables, attached._guesses_told = {}, set()
    try:
        known = {i.name for i in attached.layers()}
    except ModelError as error:
        raise ModelError(
            f"with the dictionary in it, {layer!r} does not run: attach it to a module before or "
            f"after ({error})"
        ) from error
    if f"{layer}.{name}" not in known:
        raise ModelError(
            f"the network calls {layer!r} past its modules: give fv.Model an nn.Module whose "
            "forward calls it"
        )
    gray = torch.full((1, model.channels, *model.size), 0.5, device=model.device)
    before, after = ([t for _, t in tensors_in(m(gray))] for m in (model, attached))
    if not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
        raise ModelError(
            f"{layer!r} runs whatever modules are in it, the dictionary too: attach it to a module "
            "before or after, or wrap that one in a module of its own"
        )
    return attached


def _shallow(module: nn.Module) -> nn.Module:
    """Return a module that shares everything but its tables."""
    duplicate = type(module).__new__(type(module))
    duplicate.__dict__ = dict(module.__dict__)
    for table in _TABLES:
        duplicate.__dict__[table] = copy.copy(module.__dict__[table])
    return duplicate


def _observed(module: nn.Module, name: str, codes: nn.Module) -> nn.Module:
    """Return a shallow copy of a module that encodes what it returns.

    It is of a subclass rather than hooked, so that deep copies encode with their own dictionary.
    """
    base: Any = type(module)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        output = base.forward(self, *args, **kwargs)
        self._modules[name](output)  # type: ignore[misc]
        return output

    members: dict[str, Any] = {"forward": forward, "__module__": base.__module__}
    if hasattr(base, "__iter__"):  # a Sequential runs what it iterates over
        members["__iter__"] = lambda self: (m for k, m in self._modules.items() if k != name)
        members["__len__"] = lambda self: len(self._modules) - 1
    observed = _shallow(module)
    observed.__class__ = type(base.__name__, (base,), members)
    observed._modules[name] = codes
    return observed


def _replaced(
    module: nn.Module, old: nn.Module, new: nn.Module, memo: dict[int, nn.Module]
) -> nn.Module:
    """Return a tree of modules with one replaced wherever it occurs; unchanged parts are shared."""
    if module is old:
        return new
    if id(module) not in memo:
        memo[id(module)] = module
        children = {
            key: _replaced(child, old, new, memo)
            for key, child in module._modules.items()
            if child is not None
        }
        if any(module._modules[key] is not child for key, child in children.items()):
            memo[id(module)] = _shallow(module)
            memo[id(module)]._modules.update(children)
    return memo[id(module)]
