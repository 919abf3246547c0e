"""Noise in the network: small random changes of its channels and residual branches.

An image should be robust not only to small changes of itself, but also to small changes of the
network. Channel noise multiplies every output channel of the normalization layers by 1 + sd * n,
before the activation function; branch noise multiplies every residual branch by one such factor.
The same factors apply to all samples. It is the noise of Ghost Networks [Li2020]_ and, on weights,
of NoiseGrad [Bykov2022]_.

Like the overrides of :mod:`featviz.networks.gradients`, the noise intercepts *functions*
(``F.batch_norm``, ``torch.add``, …), so that it reaches functional layers too and leaves the
network untouched.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.normals import normals
from featviz.types import Tensor

#: Functions whose output channels are changed, by preference: those of the first group that a
#: network calls. The values say whether the channels are the last axis instead of axis 1.
GROUPS: tuple[dict[str, bool], ...] = (
    {"batch_norm": False},
    {"instance_norm": False, "group_norm": False, "layer_norm": True, "rms_norm": True},
    {"conv1d": False, "conv2d": False, "conv3d": False, "linear": True},
)
_ADDITIONS = ("add", "add_", "__add__", "__iadd__", "__radd__")


@dataclasses.dataclass(frozen=True)
class Sites:
    """Where noise acts, in the order of the network's calls.

    ``functions`` maps function names to whether channels are the last axis; ``shapes`` has, for
    each call, the shape of factors that broadcast to its output. ``branches`` has an entry for each
    addition of two tensors: the position of the operand that is a residual branch, or -1.
    """

    functions: dict[str, bool]
    shapes: tuple[tuple[int, ...], ...]
    branches: tuple[int, ...]


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", "")).partition(".")[0]  # exported: "add.Tensor"


def _is_addition(name: str, args: tuple[Any, ...]) -> bool:
    return (
        name in _ADDITIONS
        and len(args) >= 2
        and all(isinstance(a, torch.Tensor) and a.ndim > 2 for a in args[:2])
    )


class _Recorder(TorchFunctionMode):
    """Records the calls of a forward pass, and from which operations each tensor is computed."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.shapes: list[list[tuple[int, ...]]] = [[] for _ in GROUPS]
        self.branches: list[int] = []
        #: Bit masks of the operations that led to a tensor; the tensors are kept so that their ids
        #: stay unique.
        self.history: dict[int, int] = {id(images): 1}
        self.tensors: list[Any] = [images]
        self.count = 1

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = _name(function)
        if _is_addition(name, args):
            depths = [self.history.get(id(a), 0).bit_count() for a in args[:2]]
            derived = min(depths) > 0 and args[0].shape == args[1].shape
            self.branches.append(int(depths[1] > depths[0]) if derived else -1)
        output = function(*args, **(kwargs or {}))
        if isinstance(output, torch.Tensor):
            for group, shapes in zip(GROUPS, self.shapes, strict=True):
                if name in group and output.ndim > 1:
                    last = group[name]
                    axes = () if last else (1,) * (output.ndim - 2)
                    shapes.append((output.shape[-1 if last else 1], *axes))
        self._track(output, (*args, *(kwargs or {}).values()))
        return output

    def _track(self, output: Any, inputs: tuple[Any, ...]) -> None:
        mask = 0
        for value in inputs:
            for item in value if isinstance(value, (tuple, list)) else (value,):
                mask |= self.history.get(id(item), 0)
        if mask:
            for item in output if isinstance(output, (tuple, list)) else (output,):
                if isinstance(item, torch.Tensor):
                    self.tensors.append(item)
                    self.history[id(item)] = mask | 1 << self.count
            self.count += 1


#: The sites of each network by the size of its input; a network is recorded once.
_SITES: weakref.WeakKeyDictionary[Model, dict[tuple[int, ...], Sites]] = weakref.WeakKeyDictionary()


def find_sites(model: Model, size: tuple[int, ...]) -> Sites:
    """Return where noise acts in a network for images of ``size``."""
    known = _SITES.setdefault(model, {})
    if size not in known:
        known[size] = _record(model, size)
    return known[size]


def _record(model: Model, size: tuple[int, ...]) -> Sites:
    model.layers(size)  # an error for images that the network cannot take
    images = torch.full((1, model.channels, *size), 0.5, device=model.device)
    recorder = _Recorder(images)
    with model.session(), torch.no_grad(), recorder:
        model.forward(images)
    for group, shapes in zip(GROUPS, recorder.shapes, strict=True):
        if shapes:
            return Sites(group, tuple(shapes), tuple(recorder.branches))
    return Sites({}, (), tuple(recorder.branches))


class NetworkNoise(TorchFunctionMode):
    """Multiplies channels and residual branches by random factors, within the context.

    The factors are tensors that :meth:`draw_` overwrites, so that a traced network refers to them
    and need not be traced again.

    Parameters
    ----------
    model
        The network, on the device to compute on.
    size
        Spatial size of its input.
    channels, branches
        Which noise is applied.

    Raises
    ------
    FeatvizError
        If the network has no such layers or no residual branches.
    """

    def __init__(
        self, model: Model, size: tuple[int, ...], *, channels: bool, branches: bool
    ) -> None:
        super().__init__()
        self.sites = find_sites(model, size)
        if channels and not self.sites.shapes:
            raise FeatvizError(
                "channel_noise has nothing to act on: the network calls no normalization, "
                "convolution or linear function"
            )
        if branches and max(self.sites.branches, default=-1) < 0:
            raise FeatvizError("branch_noise has nothing to act on: no residual branches")
        self.channels, self.branches = channels, branches
        #: Increases with every draw, so that quantities derived from the factors can be cached.
        self.version = 0
        shapes = self.sites.shapes if channels else ()
        counts = [shape[0] for shape in shapes]
        self.channel_factors = torch.ones(sum(counts), device=model.device)
        self.branch_factors = torch.ones(
            len(self.sites.branches) if branches else 0, device=model.device
        )
        # Views made in advance: a trace then refers to them as constants.
        self._by_site = [
            factors.view(shape)
            for factors, shape in zip(self.channel_factors.split(counts), shapes, strict=True)
        ]
        self._by_branch = self.branch_factors.unbind() if branches else ()
        self._site = self._addition = 0

    def owns(self, tensor: Tensor) -> bool:
        """Return whether ``tensor`` is a view of the factors."""
        storages = [t.untyped_storage() for t in (self.channel_factors, self.branch_factors)]
        pointers = [s.data_ptr() for s in storages if s.nbytes()]
        return tensor.untyped_storage().data_ptr() in pointers

    @torch.no_grad()
    def draw_(self, channel: tuple[float, float], branch: tuple[float, float]) -> None:
        """Set the factors, from (sd, start of a slice of the normal numbers) for each kind."""
        pairs = (self.channel_factors, channel), (self.branch_factors, branch)
        for factors, (sd, start) in pairs:
            if len(factors):
                noise = normals(start, len(factors), factors.device)
                factors.copy_(noise).mul_(sd).add_(1)
        self.version += 1

    def __enter__(self) -> NetworkNoise:
        self._site = self._addition = 0
        super().__enter__()
        return self

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = _name(function)
        if self.branches and _is_addition(name, args):
            return self._add(function, name, args, kwargs)
        output = function(*args, **kwargs)
        if self.channels and name in self.sites.functions and isinstance(output, torch.Tensor):
            return self._multiply(output, self.sites.functions[name])
        return output

    def _multiply(self, output: Tensor, last: bool) -> Tensor:
        if output.ndim < 2:
            return output
        shape = output.shape[-1:] if last else (output.shape[1], *(1,) * (output.ndim - 2))
        if self._site >= len(self._by_site) or self._by_site[self._site].shape != shape:
            raise _changed("channel_noise")
        factors = self._by_site[self._site]
        self._site += 1
        return output * _cast(factors, output)

    def _add(self, function: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
        if self._addition >= len(self._by_branch):
            raise _changed("branch_noise")
        branch = self.sites.branches[self._addition]
        factor = self._by_branch[self._addition]
        self._addition += 1
        if branch < 0:
            return function(*args, **kwargs)
        operands = list(args)
        operands[branch] = operands[branch] * _cast(factor, operands[branch])
        if name not in ("add_", "__iadd__"):
            return function(*operands, **kwargs)
        return args[0].copy_(torch.add(*operands, **kwargs))


def _cast(factors: Tensor, like: Tensor) -> Tensor:
    # A cast to the same type would be recorded in a trace.
    return factors if factors.dtype == like.dtype else factors.to(like.dtype)


def _changed(name: str) -> FeatvizError:
    return FeatvizError(
        f"{name} needs a network that calls the same layers in every pass; this one does not"
    )
