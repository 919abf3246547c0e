"""Units of a network: neuron, channel, layer, direction, class logit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from featviz.errors import UnitError
from featviz.layers import LayerInfo
from featviz.objectives.base import Objective
from featviz.objectives.parsing import Quoted, format_field
from featviz.objectives.scene import Scene, Score, Target
from featviz.types import Tensor


class Unit(Objective):
    """An objective that reads the activation of one layer; subclasses say what of it."""

    kind: ClassVar[str]
    layer: str

    def layers(self, target: Target) -> tuple[str, ...]:
        return (self.layer,)

    def fields(self) -> tuple[str | float | tuple[float, ...], ...]:
        """Return what follows the kind in the text."""
        return (self.layer,)

    def options(self) -> dict[str, str | float]:
        """Return the ``key=value`` fields of the text that differ from their defaults."""
        return {}

    def __str__(self) -> str:
        plain = [format_field(f) for f in self.fields()]
        named = [f"{k}={format_field(v)}" for k, v in self.options().items()]
        return ":".join([self.kind, *plain, *named])


def _check(index: int, count: int, what: str, info: LayerInfo) -> None:
    if not 0 <= index < count:
        raise UnitError(f"no {what} {index} in layer {info.name!r}: it has 0 to {count - 1}")


def _batch_mean(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1).mean(1)


def _stack_rows(
    members: Sequence[Any], target: Target, index: Callable[[Any, LayerInfo], tuple[int, ...]]
) -> Score | None:
    """Read one row of each sample's activation: unit first, then positions; None if mixed."""
    name = members[0].layer
    if any(m.layer != name for m in members):
        return None
    info = target.layer(name)
    rows = [index(m, info) for m in members]
    columns = [torch.tensor(c, device=target.device) for c in zip(*rows, strict=True)]
    batch = torch.arange(len(members), device=target.device)
    return lambda scene: _batch_mean(scene[name].movedim(info.axis, 1)[(batch, *columns)])


@dataclasses.dataclass(frozen=True, repr=False)
class Channel(Unit):
    """See :func:`channel`."""

    kind = "channel"
    layer: str
    channel: int

    def fields(self) -> tuple[str | float, ...]:
        return self.layer, self.channel

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        _check(self.channel, info.units, "channel", info)
        return lambda scene: _batch_mean(scene[self.layer].select(info.axis, self.channel))

    @classmethod
    def stack(cls, members: Sequence[Any], target: Target) -> Score | None:
        return _stack_rows(members, target, lambda m, _: (m.channel,))


@dataclasses.dataclass(frozen=True, repr=False)
class Neuron(Unit):
    """See :func:`neuron`."""

    kind = "neuron"
    layer: str
    channel: int
    position: tuple[int, ...] = ()

    def fields(self) -> tuple[str | float, ...]:
        return self.layer, self.channel, *self.position

    def index(self, info: LayerInfo) -> tuple[int, ...]:
        """Return (unit, *position), checked against the layer."""
        _check(self.channel, info.units, "channel", info)
        place = self.position or tuple(p // 2 for p in info.positions)
        sizes = info.positions
        if len(place) != len(sizes) or any(
            not 0 <= p < s for p, s in zip(place, sizes, strict=True)
        ):
            extent = "x".join(map(str, sizes)) or "without positions"
            here = ":".join(map(str, place))
            raise UnitError(
                f"no position {here} in layer {info.name!r}: its map is {extent}, counted from 0"
            )
        return self.channel, *place

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        index = self.index(info)
        place: Any = (slice(None), *index)
        return lambda scene: scene[self.layer].movedim(info.axis, 1)[place]

    @classmethod
    def stack(cls, members: Sequence[Any], target: Target) -> Score | None:
        return _stack_rows(members, target, lambda m, info: m.index(info))


@dataclasses.dataclass(frozen=True, repr=False)
class Layer(Unit):
    """See :func:`layer`."""

    kind = "layer"
    layer: str

    def bind(self, target: Target) -> Score:
        target.layer(self.layer)
        return lambda scene: _batch_mean(scene[self.layer].square())


@dataclasses.dataclass(frozen=True, repr=False)
class Direction(Unit):
    """See :func:`direction`."""

    kind = "direction"
    layer: str
    vector: str | tuple[float, ...]
    cosine_power: float = 0.0

    def fields(self) -> tuple[str | float | tuple[float, ...], ...]:
        return self.layer, self.vector

    def options(self) -> dict[str, str | float]:
        return {"cosine_power": self.cosine_power} if self.cosine_power else {}

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        values = _read_vector(self.vector) if isinstance(self.vector, str) else self.vector
        vector = torch.as_tensor(values, dtype=torch.float32, device=target.device)
        if len(vector) != info.units:
            raise UnitError(
                f"direction has {len(vector)} numbers, but layer {info.name!r} {info.units} units"
            )

        def score(scene: Scene) -> Tensor:
            units = scene[self.layer].movedim(info.axis, -1)
            along = vector.to(units.dtype)
            dot = units @ along
            if self.cosine_power:
                lengths = units.norm(dim=-1) * along.norm()
                cosine = dot / lengths.clamp_min(torch.finfo(dot.dtype).tiny)
                dot = dot * cosine.clamp_min(0.1) ** self.cosine_power
            return _batch_mean(dot)

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class ClassLogit(Unit):
    """See :func:`class_logit`."""

    kind = "class"
    target: int | str
    layer: str = ""

    def fields(self) -> tuple[str | float, ...]:
        return (self.target if isinstance(self.target, int) else Quoted(self.target),)

    def options(self) -> dict[str, str | float]:
        return {"layer": self.layer} if self.layer else {}

    def layers(self, target: Target) -> tuple[str, ...]:
        return (self.layer or target.logits,)

    def channel(self, target: Target) -> Channel:
        """Return the same unit as a channel of the layer of the logits."""
        (layer,) = self.layers(target)
        index = self.target
        if isinstance(index, str):
            index = target.class_index(index)
        info = target.layer(layer)
        _check(index, info.units, "class", info)
        return Channel(layer, index)

    def bind(self, target: Target) -> Score:
        return self.channel(target).bind(target)

    @classmethod
    def stack(cls, members: Sequence[Any], target: Target) -> Score | None:
        return Channel.stack([m.channel(target) for m in members], target)


def channel(layer: str, channel: int) -> Objective:
    """Return the mean activation of one channel of a layer over all positions.

    ``channel("_blocks.10", 42)`` is ``channel:_blocks.10:42``. In tokens (B, N, C) the channel
    counts along C and the mean runs over the tokens. [Olah2017]_
    """
    return Channel(str(layer), _index(channel))


def neuron(layer: str, channel: int, *position: int) -> Objective:
    """Return the activation of one channel at one position, (y, x) in a feature map.

    ``neuron("_blocks.10", 42, 3, 5)`` is ``neuron:_blocks.10:42:3:5``; without a position it is
    the one in the centre (n // 2 along each axis). [Olah2017]_
    """
    return Neuron(str(layer), _index(channel), tuple(_index(p) for p in position))


def layer(layer: str) -> Objective:
    """Return the mean of a layer's squared activations, the energy that DeepDream raises.

    ``layer("_blocks.10")`` is ``layer:_blocks.10``. [Mordvintsev2015]_
    """
    return Layer(str(layer))


def direction(
    layer: str, vector: str | Path | Sequence[float] | np.ndarray | Tensor, cosine_power: float = 0
) -> Objective:
    """Return the mean over positions of the activations' dot product with a vector.

    ``vector`` has one number for each unit of the layer, and is not normalized; a path names an
    ``.npy`` file, as in ``direction:_blocks.10:vec.npy``. With ``cosine_power`` n the value is
    dot x max(cosine, 0.1)^n, which asks for activations that point that way and do nothing
    else. [Carter2019]_
    """
    power = float(cosine_power)
    if isinstance(vector, (str, Path)):
        return Direction(str(layer), str(vector), power)
    values = vector.detach().cpu().numpy() if isinstance(vector, torch.Tensor) else vector
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise UnitError(f"a direction is a vector of finite numbers, not shape {array.shape}")
    return Direction(str(layer), tuple(array.tolist()), power)


def class_logit(target: int | str, *, layer: str = "") -> Objective:
    """Return the logit of a class, given by index or, for models with class names, by name.

    ``class_logit("Egyptian cat")`` is ``class:"Egyptian cat"``. ``layer`` says where the logits
    are if not where the model says. Logits and not probabilities, which rise as well when the
    other classes fall. [Simonyan2014]_
    """
    return ClassLogit(target if isinstance(target, str) else _index(target), layer)


def _index(value: int) -> int:
    try:
        return int(value.__index__())
    except AttributeError:
        raise UnitError(f"expected a whole number, not {value!r}") from None


def _read_vector(path: str) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UnitError(f"cannot read direction {path!r}: {reason}") from error
    if getattr(array, "ndim", 0) != 1 or not np.issubdtype(array.dtype, np.number):
        raise UnitError(f"direction {path!r} is not a vector of numbers")
    return np.asarray(array, dtype=np.float64)
