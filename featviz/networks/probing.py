"""List the layers of a network by one forward pass, with their shapes and unit axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.jit import ScriptModule

from featviz.errors import LayerError
from featviz.networks.attention import PatternRecorder, by_head
from featviz.networks.axes import OTHER, UNIT, AxisTracker, Labels, labels_of
from featviz.networks.layers import (
    GIVEN,
    INPUT,
    OUTPUT,
    PATTERN,
    LayerTable,
    inputs_of,
    module_names,
    tensors_in,
)
from featviz.networks.writes import WriteTracker
from featviz.types import LayerInfo, Tensor

#: The path of a tensor, its shape, the labels of its axes.
_Described: TypeAlias = tuple[str, tuple[int, ...], Labels]
#: A call of a module: its name, the module, which call it is, its outputs and its inputs.
_Call: TypeAlias = tuple[str, nn.Module, int, list[_Described], list[_Described]]


def unit_axis(shape: tuple[int, ...], images: tuple[int, ...]) -> int:
    """Guess from an activation's ``shape`` (batch included) which axis counts the units.

    This is the last resort where the operations that made the tensor do not tell.

    ``images`` is the shape of the network's input. A map with as many spatial axes is
    (B, C, *spatial), or (B, *spatial, C) as in Swin, which a square input reveals: the map is then
    square over the first axes but not over the last. With fewer axes it is tokens (B, N, C),
    features (B, C), or one value (B,), axis 0.
    """
    if len(shape) != len(images):
        return len(shape) - 1
    square = len(shape) > 3 and len(set(images[2:])) == 1
    if square and len(set(shape[1:-1])) == 1 and len(set(shape[2:])) > 1:
        return len(shape) - 1
    return 1


def probe(
    net: nn.Module,
    run: Callable[[], Any],
    images: Tensor,
    like: LayerTable | None = None,
    axes: Mapping[str, int] | None = None,
) -> LayerTable:
    """Run the network once and list what every module returned.

    ``run`` makes one forward pass on ``images`` (1, C, *spatial), without gradients. Unit axes are
    those of ``axes``, by layer; those of ``like``, the table for another input size; those that the
    operations show (:mod:`featviz.networks.axes`); and guesses from the shape.

    Raises
    ------
    LayerError
        If ``axes`` names a layer that does not exist, or an axis that it does not have.
    """
    axes = axes or {}
    known = {i.name: i for i in like or ()} | (like.inputs if like is not None else {})
    tracker = AxisTracker(images)
    writes = WriteTracker()
    calls_seen: list[_Call] = []
    counts: dict[str, int] = {}
    #: The calls that are running, and the attention patterns of every call: their shape, and after
    #: how many calls had ended they were computed.
    running: list[tuple[str, int]] = []
    patterns: dict[tuple[str, int], list[tuple[tuple[int, ...], int]]] = {}

    def attended(shape: tuple[int, ...]) -> None:
        for key in running:
            pattern = by_head(shape, len(images)), len(calls_seen)
            patterns.setdefault(key, []).append(pattern)

    def returned(weights: Tensor) -> None:
        # Heads are the units of weights by head; of their mean it is the keys, as ever.
        tracker.name(weights, 1 if weights.ndim == 4 else weights.ndim - 1)

    def described(module: nn.Module | None, value: Any) -> list[_Described]:
        found = []
        for path, tensor in tensors_in(value):
            labels = tracker.labels(tensor)
            if module is not None:
                labels = labels_of(module, labels, tensor.ndim)
            found.append((path, tuple(tensor.shape), labels))
        return found

    def watch(name: str) -> Callable[[nn.Module, Any, Any, Any], None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            call = counts.get(name, 0)
            counts[name] = call + 1
            running.remove((name, call))
            given = described(None, inputs_of(args, kwargs))
            calls_seen.append((name, module, call, described(module, output), given))
            for path, tensor in tensors_in(output):
                writes.watch((name, call, path), tensor)

        return hook

    def watch_given(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            running.append((name, counts.get(name, 0)))
            for path, tensor in tensors_in(inputs_of(args, kwargs)):
                writes.watch((f"{name}{GIVEN}", counts.get(name, 0), path), tensor)

        return hook

    first_names = {id(m): name for name, m in reversed(module_names(net).items())}
    modules = {id(m): m for m in module_names(net).values()}
    # Scripted modules run unseen and refuse hooks.
    seen = {k: n for k, n in first_names.items() if not isinstance(modules[k], ScriptModule)}
    handles = [
        modules[k].register_forward_hook(watch(n), with_kwargs=True) for k, n in seen.items()
    ]
    handles += [
        modules[k].register_forward_pre_hook(watch_given(n), with_kwargs=True)
        for k, n in seen.items()
    ]
    try:
        with torch.no_grad(), tracker, writes, PatternRecorder(attended, returned):
            output = run()
    finally:
        for handle in handles:
            handle.remove()

    table = LayerTable()

    def add(
        name: str,
        kind: str,
        shape: tuple[int, ...],
        labels: Labels,
        calls: int,
        overwritten: bool = False,
        *,
        given: bool = False,
    ) -> None:
        if not shape:
            return  # a single number for the whole batch
        if len(shape) == 1:  # one value a sample is one unit
            shape, labels = (*shape, 1), (OTHER, UNIT)
        axis, labels = _unit_axis(name, shape, labels, tuple(images.shape), axes, known)
        batched = shape[0] == len(images)
        units = shape[axis]
        info = LayerInfo(name, kind, shape[1:], axis, units, calls, labels, batched, overwritten)
        if given:
            table.inputs[name] = info
        else:
            table.append(info)

    add(INPUT, "Input", tuple(images.shape), tracker.labels(images), 1)
    names = set(module_names(net))
    ends = [1]  # how many layers are listed after so many calls
    for name, module, call, outputs, inputs in calls_seen:
        calls = counts[name]
        kind = type(module).__name__
        given = f"{name}{GIVEN}"
        for path, shape, labels in inputs if given not in names else ():
            overwritten = (given, call, path) in writes.overwritten
            if calls > 1:
                add(f"{given}#{call}{path}", kind, shape, labels, 1, overwritten, given=True)
            if call == calls - 1:
                add(f"{given}{path}", kind, shape, labels, calls, overwritten, given=True)
        for path, shape, labels in outputs:
            overwritten = (name, call, path) in writes.overwritten
            if calls > 1:
                add(f"{name}#{call}{path}", kind, shape, labels, 1, overwritten)
            if call == calls - 1:
                add(f"{name}{path}", kind, shape, labels, calls, overwritten)
        ends.append(len(table))
        found = patterns.get((name, call), ()) if f"{name}{PATTERN}" not in names else ()
        for index, (shape, ended) in enumerate(found):
            path = f"[{index}]" if len(found) > 1 else ""
            labels = (*(OTHER,) * (len(shape) - 3), UNIT, OTHER, OTHER)
            for number, of in ((f"#{call}", 1), ("", calls)):
                if calls > 1 if number else call == calls - 1:
                    pattern = f"{name}{PATTERN}{number}{path}"
                    add(pattern, kind, shape, labels, of, given=True)
                    table.ended[pattern] = ends[ended]
    for path, shape, labels in described(net, output):
        add(f"{OUTPUT}{path}", type(net).__name__, shape, labels, 1)
    for name in axes:
        table.find(name)
    return table


def _unit_axis(
    name: str,
    shape: tuple[int, ...],
    labels: Labels,
    images: tuple[int, ...],
    axes: Mapping[str, int],
    known: Mapping[str, LayerInfo],
) -> tuple[int, Labels]:
    """Return the unit axis of an activation, and its labels with exactly that axis as the unit.

    The labels of an axis that had to be guessed name no unit.
    """
    if name in axes:
        axis = axes[name] % len(shape) if -len(shape) <= axes[name] < len(shape) else 0
        if not axis:
            raise LayerError(
                f"axes: layer {name!r} has shape {shape}, batch included: its unit axis is one of "
                f"1 to {len(shape) - 1}, not {axes[name]}"
            )
    elif name in known and len(known[name].shape) == len(shape) - 1:
        axis = known[name].axis
        if UNIT not in known[name].labels:
            return axis, tuple(OTHER if label == UNIT else label for label in labels)
    elif labels.count(UNIT) == 1 and labels.index(UNIT) > 0:
        return labels.index(UNIT), labels
    else:
        return unit_axis(shape, images), tuple(OTHER if w == UNIT else w for w in labels)
    rest = [OTHER if w == UNIT else w for w in labels or (OTHER,) * len(shape)]
    return axis, (*rest[:axis], UNIT, *rest[axis + 1 :])
