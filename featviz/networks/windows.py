"""Windows of an image, put back: layers of windowed attention as maps (B, C, H, W).

Inside the blocks of Swin and its kin the first axis counts windows, (B·windows, tokens, C), and the
order of their tokens is known only to the operations that made them: padding, a cyclic shift, views
and permutations. :class:`PositionTracker` follows two images through these, so that each row of
such a layer is known to be a position of an image or padding. [Liu2021]_
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

from featviz.networks.dispatch import DispatchMode
from featviz.types import Tensor

#: Operations that move elements and compute nothing; the same is done to the positions.
_MOVES = (
    "permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "slice", "select", "roll",
    "flip", "split", "split_with_sizes", "chunk", "unbind",
)  # fmt: skip
_RESHAPES = ("view", "_unsafe_view", "reshape", "_reshape_alias")
#: Operations that may move elements, by what the image is like: not followed.
_SHUFFLES = ("sort", "topk", "gather", "scatter", "index", "as_strided", "shuffle", "im2col")
_SAME = ("clone", "contiguous", "detach", "alias", "_to_copy", "copy", "dropout")
_POINTWISE = ("add", "sub", "mul", "add_", "mul_")
#: Operations after which positions are counted anew: the output is a map of its own.
_MAPS = ("convolution", "pool", "upsample")
_SIDE = 1 << 20
_PADDING, _UNKNOWN = -1, -2


def grid(batch: int, height: int, width: int) -> Tensor:
    """Return a number for each position of each image, (B, H, W), int64."""
    image, y, x = (torch.arange(n) for n in (batch, height, width))
    return (image[:, None, None] * _SIDE + y[:, None]) * _SIDE + x


class PositionTracker(DispatchMode):
    """Follow the positions of ``images`` (B, C, H, W) through a pass in this context."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self._positions: Any = WeakTensorKeyDictionary()
        batch, _, height, width = images.shape
        self._positions[images] = grid(batch, height, width)[:, None].expand(images.shape)

    def positions(self, tensor: Tensor) -> Tensor | None:
        """Return the position of each element, negative for padding and unknown ones, or None."""
        known: Tensor | None = self._positions.get(tensor)
        return known if known is not None and known.shape == tensor.shape else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        several = isinstance(result, (tuple, list))
        outputs = [t for t in (result if several else [result]) if isinstance(t, torch.Tensor)]
        tensors = [t for t in args if isinstance(t, torch.Tensor)]
        inputs = [(t, p) for t in tensors if (p := self.positions(t)) is not None]
        if name == "cat" and outputs and any(self.positions(t) is not None for t in args[0]):
            parts = [_or_unknown(self.positions(t), t) for t in args[0]]
            self._positions[outputs[0]] = torch.cat(parts, *args[1:], **kwargs)
        elif inputs and outputs:
            moved = self._moved(func, name, args, kwargs, inputs, outputs)
            for output, positions in zip(outputs, moved, strict=True):
                if positions is not None and positions.shape == output.shape:
                    self._positions[output] = positions
        return result

    def _moved(
        self,
        func: Any,
        name: str,
        args: Any,
        kwargs: Any,
        inputs: list[tuple[Tensor, Tensor]],
        outputs: list[Tensor],
    ) -> list[Tensor | None]:
        """Return the positions of an operation's outputs."""
        first, positions = inputs[0]
        output = outputs[0]
        if first is args[0]:
            if name in _MOVES:
                moved = func(positions.contiguous(), *args[1:], **kwargs)
                return list(moved) if isinstance(moved, (tuple, list)) else [moved]
            if name in _RESHAPES:
                return [positions.reshape(output.shape)]
            if name == "constant_pad_nd":
                return [torch.constant_pad_nd(positions, args[1], _PADDING)]
            if name in _SAME:
                return [positions]
        if any(word in name for word in _SHUFFLES):
            return [None for _ in outputs]
        if any(word in name for word in _MAPS):
            return [_map_of(output), *(None for _ in outputs[1:])]
        return [self._by_row(name, inputs, tensor) for tensor in outputs]

    def _by_row(
        self, name: str, inputs: list[tuple[Tensor, Tensor]], output: Tensor
    ) -> Tensor | None:
        """Return the positions of what is computed row by row, or from rows by their queries."""
        same = [p for t, p in inputs if t.shape == output.shape]
        if name in _POINTWISE and len(same) > 1:
            return torch.where(same[0] == same[1], same[0], _UNKNOWN)
        for tensor, positions in inputs:
            if tensor.shape == output.shape:
                return positions
            if tensor.ndim == output.ndim > 1 and tensor.shape[:-1] == output.shape[:-1]:
                return _first_of_row(positions).expand(output.shape)
        return None


def _or_unknown(positions: Tensor | None, tensor: Tensor) -> Tensor:
    return torch.full(tensor.shape, _UNKNOWN) if positions is None else positions


def _first_of_row(positions: Tensor) -> Tensor:
    """Return the first position in each row, (…, 1); merged patches are where their first is."""
    last = torch.iinfo(positions.dtype).max
    first = positions.masked_fill(positions < 0, last).amin(-1, keepdim=True)
    first = first.masked_fill(first == last, _PADDING)
    return first.masked_fill((positions == _UNKNOWN).any(-1, keepdim=True), _UNKNOWN)


def _map_of(output: Tensor) -> Tensor | None:
    if output.ndim != 4:
        return None
    batch, _, height, width = output.shape
    return grid(batch, height, width)[:, None].expand(output.shape)


@dataclasses.dataclass(frozen=True)
class Windows:
    """Where the rows of a layer (B·windows, …) are in the image.

    ``order`` (H·W,) has for each position, row by row, the number of its row among those of one
    image; ``side`` is (H, W), and ``axis`` the layer's unit axis.
    """

    order: Tensor
    side: tuple[int, int]
    axis: int

    def regroup(self, activation: Tensor, batch: int) -> Tensor:
        """Return an activation (B·windows, …) as a map (B, C, H, W)."""
        rows = self._rows(activation, batch)[:, self.order.to(activation.device)]
        return rows.transpose(1, 2).unflatten(2, self.side)

    def back(self, activation: Tensor, maps: Tensor) -> Tensor:
        """Return an activation (B·windows, …) with the values of a map; padding stays."""
        rows = self._rows(activation, len(maps))
        order = self.order.to(activation.device)
        rows = rows.index_copy(1, order, maps.flatten(2).transpose(1, 2))
        shape = activation.movedim(self.axis, -1).shape
        return rows.reshape(shape).movedim(-1, self.axis)

    def _rows(self, activation: Tensor, batch: int) -> Tensor:
        last = activation.movedim(self.axis, -1)
        return last.reshape(batch, -1, last.shape[-1])


def windows_of(positions: Tensor, axis: int) -> Windows | None:
    """Return where the rows of a layer are, from their positions in a pass of two images.

    None if some are unknown, if the layer mixes the two images' windows, or if its rows are not the
    positions of a whole grid, each once.
    """
    rows = positions.movedim(axis, -1)
    if len(rows) % 2 or not (rows == rows[..., :1]).all():
        return None
    first, second = rows[..., 0].reshape(2, -1)
    known = first >= 0
    shifted = torch.where(known, first + _SIDE * _SIDE, first)
    if (first < _PADDING).any() or not torch.equal(shifted, second) or not known.any():
        return None
    slots = known.nonzero()[:, 0]
    y, x = first[slots] // _SIDE, first[slots] % _SIDE
    if int(y.max()) >= _SIDE:  # of the second image
        return None
    ys, row = y.unique(return_inverse=True)
    xs, column = x.unique(return_inverse=True)
    places = row * len(xs) + column
    if len(places) != len(ys) * len(xs) or len(places.unique()) < len(places):
        return None
    return Windows(slots[places.argsort()], (len(ys), len(xs)), axis)


def find_windows(
    modules: Mapping[str, nn.Module],
    run: Callable[[], Any],
    images: Tensor,
    axes: Mapping[str, int],
) -> dict[str, Windows]:
    """Run a network on two images (2, C, H, W), and return where its windows are, by module.

    ``axes`` has the modules that are of interest and the unit axis of what they return on their
    last call. Those that cannot be followed are left out.
    """
    tracker = PositionTracker(images)
    found: dict[str, Windows | None] = {}

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            positions = tracker.positions(output) if isinstance(output, torch.Tensor) else None
            found[name] = None if positions is None else windows_of(positions, axes[name])

        return hook

    handles = [modules[name].register_forward_hook(watch(name)) for name in axes]
    try:
        with torch.no_grad(), tracker:
            run()
    finally:
        for handle in handles:
            handle.remove()
    return {name: windows for name, windows in found.items() if windows is not None}


__all__ = ["Windows", "find_windows"]
