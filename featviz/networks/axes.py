"""Follow the axes of every tensor of a forward pass, to know which one counts the units.

Shapes alone do not tell (a map (B, 8, 17, 65) of a convolution looks like tokens of heads), but
the operations do: a convolution or batch norm writes its channels to axis 1, a linear layer, a
layer norm or an LSTM to the last axis, and everything else moves, merges or reduces axes.
:class:`AxisTracker` watches the operations of one pass and labels the axes of what they return.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

from featviz.networks.dispatch import DispatchMode
from featviz.types import Tensor

#: What an axis holds: :data:`UNIT`, spatial axes of the image by number ("0" is y; "01" are y and x
#: flattened into tokens), or :data:`OTHER`, which includes the batch.
Labels: TypeAlias = tuple[str, ...]
UNIT, OTHER = "unit", "?"

_CHANNELS_FIRST = ("convolution", "batch_norm", "group_norm", "instance_norm")
_FEATURES_LAST = ("rnn", "lstm", "gru", "_native_multi_head_attention", "_transformer_encoder")
_RESHAPES = ("view", "_unsafe_view", "reshape", "_reshape_alias", "squeeze", "flatten", "unflatten")


class AxisTracker(DispatchMode):
    """Label the axes of all tensors computed from ``images`` (B, C, *spatial) in this context."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self._labels: Any = WeakTensorKeyDictionary()
        self._labels[images] = (OTHER, UNIT, *map(str, range(images.ndim - 2)))

    def labels(self, tensor: Tensor) -> Labels:
        """Return a label for each axis of a tensor; none if it does not depend on the images."""
        known: Labels = self._labels.get(tensor, ())
        return known if len(known) == tensor.ndim else ()

    def name(self, tensor: Tensor, unit: int) -> None:
        """Say that axis ``unit`` of a tensor counts its units, which no operation shows."""
        self._labels[tensor] = tuple(UNIT if i == unit else OTHER for i in range(tensor.ndim))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        expected = func._schema.arguments
        arguments = {argument.name: argument.default_value for argument in expected}
        arguments |= dict(zip(arguments, args, strict=False)) | (kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        inputs = list(_tensors(arguments.values()))
        if any(self.labels(tensor) for tensor in inputs):
            for output in _tensors([result]):
                labels = self._of(name, arguments, inputs, output)
                unknown = (OTHER,) * output.ndim  # but computed from the images
                self._labels[output] = labels if len(labels) == output.ndim else unknown
        return result

    def _of(
        self, name: str, arguments: dict[str, Any], inputs: list[Tensor], output: Tensor
    ) -> Labels:
        """Return the labels of one output of an operation."""
        first, axes = self.labels(inputs[0]), output.ndim
        if any(word in name for word in _CHANNELS_FIRST) and axes > 1:
            batch, _, *spatial = (OTHER if w == UNIT else w for w in first or (OTHER,) * axes)
            return (batch, UNIT, *spatial)
        if name == "linear":
            return _with_unit_last(first)
        if "layer_norm" in name or "rms_norm" in name:
            if len(arguments.get("normalized_shape", ())) != 1:
                return first
            return _with_unit_last(first)
        if any(word in name for word in _FEATURES_LAST):
            return _with_unit_last(first) if len(first) == axes else (OTHER,) * (axes - 1) + (UNIT,)
        if "scaled_dot_product" in name:
            value = arguments.get("value", inputs[-1])
            return first[:-1] + (self.labels(value)[-1:] or (UNIT,))
        if name in ("mm", "bmm", "addmm", "baddbmm"):
            return self._product(inputs[-2], inputs[-1], axes)
        if name == "embedding":
            return (OTHER,) * (axes - 1) + (UNIT,)
        source = self._main(inputs, axes)
        labels = self.labels(source)
        if name in ("permute", "transpose", "t", "movedim"):
            return _permuted(name, arguments, labels)
        if name in _RESHAPES and "dim" not in arguments:
            return reshaped(tuple(source.shape), labels, tuple(output.shape))
        return _moved(labels, arguments.get("dim"), axes)

    def _product(self, first: Tensor, second: Tensor, axes: int) -> Labels:
        """Return the labels of a matrix product; one with weights makes units."""
        left, right = self.labels(first), self.labels(second)
        if not left:  # weights times activations
            return (*(OTHER,) * (axes - 2), UNIT, right[-1])
        rows = tuple(OTHER if label == UNIT else label for label in left[:-1])
        return (*rows, right[-1] if right else UNIT)

    def _main(self, inputs: list[Tensor], axes: int) -> Tensor:
        """Return the input that the output takes its axes from."""
        labelled = [tensor for tensor in inputs if self.labels(tensor)]
        return max(
            reversed(labelled),
            key=lambda t: (t.ndim == axes, UNIT in self.labels(t), t is inputs[0]),
        )


def labels_of(module: nn.Module, labels: Labels, axes: int) -> Labels:
    """Return the labels of a module's output of ``axes`` axes, by its type where they are unknown.

    ``labels`` are those of the operations.
    """
    if labels.count(UNIT) == 1 or axes < 2:
        return labels
    if isinstance(module, (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)):
        return (OTHER, UNIT, *(OTHER,) * (axes - 2))
    if isinstance(module, (nn.Linear, nn.Embedding, nn.RNNBase)):
        return (OTHER,) * (axes - 1) + (UNIT,)
    return labels


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _with_unit_last(labels: Labels) -> Labels:
    return (*(OTHER if label == UNIT else label for label in labels[:-1]), UNIT)


def _permuted(name: str, arguments: dict[str, Any], labels: Labels) -> Labels:
    if name == "permute":
        return tuple(labels[dim] for dim in arguments["dims"])
    order = list(labels)
    first, second = arguments.get("dim0", 0), arguments.get("dim1", -1)
    if order:
        order[first], order[second] = order[second], order[first]
    return tuple(order)


def _moved(labels: Labels, dim: Any, axes: int) -> Labels:
    """Return the labels after axes ``dim`` were added or removed; others stay where they are."""
    if axes == len(labels):
        return labels
    if axes > len(labels):
        if isinstance(dim, int) and axes == len(labels) + 1:
            at = dim % axes
            return (*labels[:at], OTHER, *labels[at:])
        return (OTHER,) * (axes - len(labels)) + labels  # broadcast
    dims = [dim] if isinstance(dim, int) else list(dim or ())
    removed = {d % len(labels) for d in dims}
    return tuple(label for i, label in enumerate(labels) if i not in removed)


def reshaped(shape: Sequence[int], labels: Labels, target: Sequence[int]) -> Labels:
    """Return the labels after a reshape from ``shape`` to ``target``.

    Axes that are merged share their labels (units win), and an axis of units that is split leaves
    them to its last part: channels per head, or per group.
    """
    result: list[str] = []
    i = j = 0
    while i < len(shape) and j < len(target):
        sources, targets = [i], [j]
        i, j = i + 1, j + 1
        size, goal = shape[sources[0]], target[targets[0]]
        while size != goal:
            if size < goal and i < len(shape):
                sources.append(i)
                size, i = size * shape[i], i + 1
            elif size > goal and j < len(target):
                targets.append(j)
                goal, j = goal * target[j], j + 1
            else:
                return ()
        result += _regrouped(shape, labels, sources, target, targets)
    units = any(shape[k] == 1 and labels[k] == UNIT for k in range(i, len(shape)))
    rest = len(target) - j
    if rest:
        result += [OTHER] * (rest - 1) + [UNIT if units else OTHER]
    return tuple(result)


def _regrouped(
    shape: Sequence[int],
    labels: Labels,
    sources: list[int],
    target: Sequence[int],
    targets: list[int],
) -> list[str]:
    """Return the labels of the axes ``targets`` that hold the elements of the axes ``sources``."""
    wide = [k for k in sources if shape[k] > 1] or sources[-1:]
    words = [labels[k] for k in wide]
    merged = UNIT if UNIT in words else OTHER if OTHER in words else "".join(words)
    wide_targets = [k for k in targets if target[k] > 1] or targets[-1:]
    if len(wide_targets) == 1:
        return [merged if k == wide_targets[0] else OTHER for k in targets]
    last = merged if merged == UNIT else OTHER
    return [last if k == wide_targets[-1] else OTHER for k in targets]
