"""Units of a network: neuron, channel, layer, attention head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from featviz.errors import UnitError
from featviz.objectives import arrays, reduction
from featviz.objectives.base import Objective
from featviz.objectives.scene import IMAGE, Scene, Score, Target
from featviz.objectives.unit import Unit, check_index, index, whole, wholes, word
from featviz.types import LayerInfo, Tensor

#: Selects positions in Python: text, or an array of weights.
Where = str | np.ndarray | Tensor | None


def where_text(where: Where) -> str:
    """Return the text of a selection of positions; an array is registered under a name."""
    return "" if where is None else arrays.register_name(where, "where")


def layer_name(layer: object) -> str:
    """Return the name of a layer; raise :class:`UnitError` for a module, which has none."""
    if isinstance(layer, torch.nn.Module):
        raise UnitError(
            f"a layer is given by its name, not as a {type(layer).__name__}: "
            "model.layers() lists the names"
        )
    return str(layer)


def stack_rows(
    members: Sequence[Any],
    target: Target,
    rows: Callable[[Any, LayerInfo], tuple[int, ...]],
    reduce: Callable[[Tensor], Tensor],
) -> Score:
    """Score sample i by row ``rows(member i)``, (unit, *position), of its activation."""
    info = target.layer(members[0].layer)
    indices = [rows(m, info) for m in members]
    columns = [torch.tensor(c, device=target.device) for c in zip(*indices, strict=True)]
    batch = torch.arange(len(members), device=target.device)
    return lambda scene: reduce(scene[info.name].movedim(info.axis, 1)[(batch, *columns)])


class Reduced(Unit):
    """A unit whose value is reduced over the positions of its layer that ``where`` selects."""

    where: str

    @property
    def scalable(self) -> bool:
        return not self.where and self.layer != IMAGE


@dataclasses.dataclass(frozen=True, repr=False)
class Channel(Reduced):
    """See :func:`channel`."""

    kind = "channel"
    layer: str = word()
    channel: int = whole()
    reduce: str = word("mean")
    where: str = word("")

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        check_index(self.channel, info.units, "channel", info)
        reduce = reduction.reducer(self.reduce, self.where, info, target)
        return lambda scene: reduce(scene[self.layer].select(info.axis, self.channel), 1)

    @classmethod
    def stack(cls, members: Sequence[Any], target: Target) -> Score | None:
        if len({(m.layer, m.reduce, m.where) for m in members}) > 1:
            return None
        first = members[0]
        info = target.layer(first.layer)
        reduce = reduction.reducer(first.reduce, first.where, info, target)
        return stack_rows(members, target, lambda m, _: (m.channel,), lambda v: reduce(v, 1))

    @property
    def kin(self) -> tuple[object, ...]:
        return (Channel, self.layer, self.reduce, self.where)

    @classmethod
    def columns(cls, members: Sequence[Any], target: Target) -> Score:
        first = members[0]
        info = target.layer(first.layer)
        for member in members:
            check_index(member.channel, info.units, "channel", info)
        reduce = reduction.reducer(first.reduce, first.where, info, target)
        channels = torch.tensor([m.channel for m in members], device=target.device)
        all_channels = channels.tolist() == list(range(info.units))

        def score(scene: Scene) -> Tensor:
            maps = scene[info.name].movedim(info.axis, 1)
            maps = maps if all_channels else maps[:, channels]
            return reduce(maps.flatten(0, 1), 1).view(len(maps), len(members))

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class Neuron(Unit):
    """See :func:`neuron`."""

    kind = "neuron"
    layer: str = word()
    channel: int = whole()
    position: tuple[int, ...] = wholes()

    def place(self, target: Target) -> tuple[int, ...]:
        """Return the channel and its position in the layer."""
        info = target.layer(self.layer)
        check_index(self.channel, info.units, "channel", info)
        return self.channel, *reduction.position(self.position, info, target)

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        selection: Any = (slice(None), *self.place(target))
        return lambda scene: scene[self.layer].movedim(info.axis, 1)[selection]

    @classmethod
    def stack(cls, members: Sequence[Any], target: Target) -> Score | None:
        if len({m.layer for m in members}) > 1:
            return None
        return stack_rows(members, target, lambda m, _: m.place(target), lambda v: v)

    @property
    def kin(self) -> tuple[object, ...]:
        return (Neuron, self.layer)

    @classmethod
    def columns(cls, members: Sequence[Any], target: Target) -> Score:
        info = target.layer(members[0].layer)
        places = zip(*(m.place(target) for m in members), strict=True)
        selection: Any = (slice(None), *(torch.tensor(p, device=target.device) for p in places))
        return lambda scene: scene[info.name].movedim(info.axis, 1)[selection]


@dataclasses.dataclass(frozen=True, repr=False)
class Layer(Reduced):
    """See :func:`layer`."""

    kind = "layer"
    layer: str = word()
    reduce: str = word("mean_square")
    where: str = word("")

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        reduce = reduction.reducer(self.reduce, self.where, info, target)
        return lambda scene: reduce(scene[self.layer].movedim(info.axis, 1), 2)


@dataclasses.dataclass(frozen=True, repr=False)
class Head(Unit):
    """See :func:`head`."""

    kind = "head"
    layer: str = word()
    head: int = whole()
    heads: int = whole()
    reduce: str = word("mean_square")
    where: str = word("")

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        if self.heads < 1 or info.units % self.heads:
            raise UnitError(
                f"layer {info.name!r} has {info.units} units, not a multiple of {self.heads} heads"
            )
        check_index(self.head, self.heads, "head", info)
        width = info.units // self.heads
        reduce = reduction.reducer(self.reduce, self.where, info, target)

        def score(scene: Scene) -> Tensor:
            units = scene[self.layer].movedim(info.axis, 1)
            return reduce(units[:, self.head * width : (self.head + 1) * width], 2)

        return score


def channel(layer: str, channel: int, *, reduce: str = "mean", where: Where = None) -> Objective:
    """Return the mean activation of one channel of a layer over all positions.

    ``channel("_blocks.10", 42)`` is ``channel:_blocks.10:42``. In tokens (B, N, C) the channel
    indexes C and the mean is over the tokens. ``reduce`` is mean, sum, max, mean_square,
    sum_square, norm or topN (the mean of the N largest); ``where`` selects positions:
    ``"2:5,3:7"``, ``"cls"``, ``"patches"``, weights or an ``.npy`` file of them. [Olah2017]_
    """
    return Channel(layer_name(layer), index(channel), reduction.check(reduce), where_text(where))


def neuron(
    layer: str,
    channel: int,
    *position: int | Sequence[int],
    y: int | None = None,
    x: int | None = None,
) -> Objective:
    """Return the activation of one channel at one position, (y, x) in a feature map.

    ``neuron("_blocks.10", 42, 3, 5)`` is ``neuron:_blocks.10:42:3:5``; the default position is the
    centre (n // 2 along each axis, of the patches for tokens). For tokens, one number is the
    token, and two are (y, x) of the patch. ``(3, 5)`` and ``y=3, x=5`` are other ways to write it.
    [Olah2017]_
    """
    if len(position) == 1 and isinstance(position[0], (tuple, list)):
        position = tuple(position[0])
    if y is not None or x is not None:
        if position or y is None or x is None:
            raise UnitError("give the position as y= and x=, or as two numbers (y, x)")
        position = (y, x)
    return Neuron(layer_name(layer), index(channel), tuple(index(p) for p in position))


def layer(layer: str, *, reduce: str = "mean_square", where: Where = None) -> Objective:
    """Return the mean of a layer's squared activations, the energy that DeepDream maximizes.

    ``layer("_blocks.10")`` is ``layer:_blocks.10``; ``reduce`` may be ``sum_square``, ``norm`` or
    any other of :func:`channel`'s, and ``where`` is as there. [Mordvintsev2015]_
    """
    return Layer(layer_name(layer), reduction.check(reduce), where_text(where))


def head(
    layer: str, head: int, heads: int, *, reduce: str = "mean_square", where: Where = None
) -> Objective:
    """Return the energy of one attention head: the mean square of its part of (B, N, heads x d).

    The features of ``layer`` have to be those of the heads side by side: a query, key or value
    projection, or the input of the output projection. ``head("blocks.3.attn.q", 2, 12)`` is
    ``head:blocks.3.attn.q:2:12``. [Dosovitskiy2021]_ for the architecture.
    """
    return Head(str(layer), index(head), index(heads), reduction.check(reduce), where_text(where))
