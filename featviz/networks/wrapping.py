"""What a model may wrap: modules, plain functions, compiled and scripted networks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from featviz.errors import ModelError
from featviz.networks.closures import reached_modules
from featviz.types import Tensor

if TYPE_CHECKING:
    from featviz.networks.model import Model


class FunctionNetwork(nn.Module):
    """Wraps a plain function as a network without inner layers."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        # The networks behind the function are known, and evaluated and frozen like any other.
        self.owner: nn.Module | None = None
        if not isinstance(function, nn.Module):
            owners = reached_modules(function)
            self.owner = owners[0] if len(owners) == 1 else nn.ModuleList(owners) or None

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


class Classifier(nn.Module):
    """The module of :meth:`featviz.Model.as_module`; it leaves the network's modes alone."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.net = model.net
        self._model = model

    def forward(self, images: Tensor) -> Tensor:
        return self._model.activations(images, [self._model.logits])[self._model.logits]

    def train(self, mode: bool = True) -> Classifier:
        self.training = mode
        return self


def as_network(net: nn.Module | Callable[..., Any]) -> nn.Module:
    """Return a network as a module; of one that is compiled, the module behind it."""
    if not isinstance(net, nn.Module):
        return FunctionNetwork(net)
    return getattr(net, "_orig_mod", net)


@contextlib.contextmanager
def uncompiled(net: nn.Module) -> Iterator[None]:
    """Run the parts of a network that ``torch.compile`` has compiled as they are written.

    Compiled code calls no hooks that were registered later.
    """
    in_place = [m for m in net.modules() if getattr(m, "_compiled_call_impl", None) is not None]
    wrappers = [m for m in net.modules() if "_orig_mod" in m._modules]
    calls = [module._compiled_call_impl for module in in_place]
    forwards = [wrapper.__dict__.get("forward") for wrapper in wrappers]
    try:
        for module in in_place:
            module._compiled_call_impl = None
        for wrapper in wrappers:  # past their __setattr__, which sets attributes of the module
            wrapper.__dict__["forward"] = wrapper._modules["_orig_mod"]
        yield
    finally:
        for module, call in zip(in_place, calls, strict=True):
            module._compiled_call_impl = call
        for wrapper, forward in zip(wrappers, forwards, strict=True):
            wrapper.__dict__["forward"] = forward


def check_call(call: Any, net: nn.Module) -> list[nn.Module]:
    """Return the networks besides ``net`` that ``call`` uses.

    Raises
    ------
    ModelError
        If it cannot be called.
    """
    if call is None:
        return []
    if not callable(call) or isinstance(call, nn.Module):
        raise ModelError("call must be a function: call(net, images)")
    known = {id(m) for m in net.modules()}
    return [m for m in reached_modules(call) if id(m) not in known]


def why_unseen(net: nn.Module) -> str:
    """Return why the layers of a network do not show, if they do not."""
    if isinstance(net, torch.jit.ScriptModule):
        return "the network is scripted (torch.jit), which hides its layers: give its nn.Module"
    if isinstance(net, FunctionNetwork) and net.owner is None:
        return "the network is a plain function, without layers: give its nn.Module"
    return ""
