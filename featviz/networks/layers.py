"""List the layers of a network and capture their activations, leaving no trace in it.

A layer is addressed by its dotted name in ``named_modules()``, by ``input`` (the images that are
passed to the model, in [0, 1]) or by ``output`` (what the network returns). A module that is itself
called ``input``, ``output`` or ``image`` is addressed as ``net.output`` and so on.

=================  ==========================================================================
``blocks.3``       what the module returned, on its last call if it runs more than once
``blocks.3.act#0`` what its first call returned (calls count from 0)
``lstm[0]``        the first item of the tuple that it returned; also ``out[logits]`` for a
                   key or an attribute, and ``out[a][1]`` for nested values
=================  ==========================================================================
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from featviz.errors import LayerError, did_you_mean
from featviz.networks.axes import OTHER, UNIT, AxisTracker, Labels
from featviz.types import LayerInfo, Tensor

INPUT, OUTPUT = "input", "output"
_ADDRESS = re.compile(r"(?P<module>[^#\[\]]+)(?:#(?P<call>\d+))?(?P<path>(?:\[[^\[\]]+\])*)")


class LayerTable(list[LayerInfo]):
    """The layers of a network in the order in which they finish; prints as a table."""

    def __str__(self) -> str:
        rows = [("layer", "type", "shape", "units", "calls")]
        for i in self:
            rows.append((i.name, i.type, "x".join(map(str, i.shape)), str(i.units), str(i.calls)))
        widths = [max(len(row[k]) for row in rows) for k in range(5)]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    def find(self, name: str) -> LayerInfo:
        """Return the layer called ``name``; raise :class:`LayerError` with the nearest names."""
        for info in self:
            if info.name == name:
                if not info.batched:
                    raise LayerError(
                        f"layer {name!r} cannot be used: its first axis is not the batch (it has "
                        f"more than one entry for one image); name a layer before or after it"
                    )
                return info
        module = name.split("#")[0].split("[")[0]
        parts = [i.name for i in self if i.name.startswith((f"{name}[", f"{module}["))]
        if parts and name == module:
            raise LayerError(f"layer {name!r} returns several tensors: pick one of {_list(parts)}")
        calls = [i.calls for i in self if i.name == module]
        if calls and "#" in name:
            raise LayerError(
                f"no call {name!r}: {module!r} runs {calls[0]} time(s), counted from #0"
            )
        raise LayerError(f"no layer {name!r}{did_you_mean(name, [i.name for i in self])}")


def _list(names: list[str], limit: int = 6) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


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


def tensors_in(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in nested tuples, lists, mappings and dataclasses, with its path."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item, f"{path}[{key}]")
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from tensors_in(item, f"{path}[{index}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name), f"{path}[{field.name}]")


def split_address(name: str) -> tuple[str, int | None, str]:
    """Split ``"block#1[0]"`` into module name, call number and path ``("block", 1, "[0]")``."""
    match = _ADDRESS.fullmatch(name)
    if match is None:
        raise LayerError(f"cannot read layer name {name!r}: write module, module#call or module[0]")
    call = match["call"]
    return match["module"], None if call is None else int(call), match["path"]


def module_names(net: nn.Module) -> dict[str, nn.Module]:
    """Return every module below the root under each of its names (shared ones have several)."""
    return {_layer_name(n): m for n, m in net.named_modules(remove_duplicate=False) if n}


def _layer_name(module: str) -> str:
    """Return the layer name of a module: its own, or ``net.output`` if that is ambiguous."""
    return f"net.{module}" if module in (INPUT, OUTPUT, "image") else module


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
    known = {i.name: i for i in like or ()}
    tracker = AxisTracker(images)
    calls_seen: list[tuple[str, nn.Module, int, list[tuple[str, tuple[int, ...], Labels]]]] = []
    counts: dict[str, int] = {}

    def described(output: Any) -> list[tuple[str, tuple[int, ...], Labels]]:
        return [(path, tuple(t.shape), tracker.labels(t)) for path, t in tensors_in(output)]

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            call = counts.get(name, 0)
            counts[name] = call + 1
            calls_seen.append((name, module, call, described(output)))

        return hook

    handles = [m.register_forward_hook(watch(_layer_name(n))) for n, m in net.named_modules() if n]
    try:
        with torch.no_grad(), tracker:
            output = run()
    finally:
        for handle in handles:
            handle.remove()

    table = LayerTable()

    def add(name: str, kind: str, shape: tuple[int, ...], labels: Labels, calls: int) -> None:
        if not shape:
            return  # a single number for the whole batch
        if len(shape) == 1:  # one value a sample is one unit
            shape, labels = (*shape, 1), (OTHER, UNIT)
        axis, labels = _unit_axis(name, shape, labels, tuple(images.shape), axes, known)
        batched = shape[0] == len(images)
        table.append(LayerInfo(name, kind, shape[1:], axis, shape[axis], calls, labels, batched))

    add(INPUT, "Input", tuple(images.shape), tracker.labels(images), 1)
    for name, module, call, outputs in calls_seen:
        calls = counts[name]
        for path, shape, labels in outputs:
            if calls > 1:
                add(f"{name}#{call}{path}", type(module).__name__, shape, labels, 1)
            if call == calls - 1:
                add(f"{name}{path}", type(module).__name__, shape, labels, calls)
    for path, shape, labels in described(output):
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


class _StopForward(BaseException):
    """Ends a forward pass; not an Exception, so that the network's own code cannot catch it."""


def capture(
    net: nn.Module, run: Callable[[], Any], images: Tensor, names: Iterable[str], table: LayerTable
) -> dict[str, Tensor]:
    """Run the network as far as needed and return the activations called ``names``.

    The pass ends as soon as the last of them is known. Activations are what the layer returned,
    even if a later operation modifies them in place. Hooks are registered on the named modules
    only, and are removed when this returns or raises.

    Raises
    ------
    LayerError
        If a layer of ``names`` is not in ``table`` or does not run for these images.
    """
    requests: dict[str, dict[int, list[tuple[str, str]]]] = {}
    activations: dict[str, Tensor] = {}
    outputs: list[str] = []
    missing = 0
    for name in dict.fromkeys(names):
        module, call, path = split_address(name)
        if module == INPUT:
            activations[name] = images
        elif module == OUTPUT:
            outputs.append(name)
        else:
            number = table.find(name).calls - 1 if call is None else call
            requests.setdefault(module, {}).setdefault(number, []).append((name, path))
            missing += 1
    if not missing and not outputs:
        return activations

    def watch(calls: dict[int, list[tuple[str, str]]]) -> Callable[[nn.Module, Any, Any], None]:
        count = 0

        def hook(module: nn.Module, _: Any, output: Any) -> None:
            nonlocal count, missing
            due = calls.get(count, ())
            count += 1
            missing -= len(due)
            last = not missing and not outputs
            for name, path in due:
                tensor = _select(output, path, name)
                # A clone, since `x += shortcut` may follow; after the last one nothing does.
                activations[name] = tensor if last else tensor.clone()
            if due and last:
                raise _StopForward

        return hook

    modules = module_names(net)
    handles = [modules[m].register_forward_hook(watch(calls)) for m, calls in requests.items()]
    try:
        output = run()
        for name in outputs:
            activations[name] = _select(output, split_address(name)[2], name)
    except _StopForward:
        pass
    finally:
        for handle in handles:
            handle.remove()
    for calls in requests.values():
        for name, _ in (pair for pairs in calls.values() for pair in pairs):
            if name not in activations:
                raise LayerError(f"layer {name!r} did not run for this input")
    return activations


def _select(value: Any, path: str, name: str) -> Tensor:
    for item_path, tensor in tensors_in(value):
        if item_path == path:
            if tensor.ndim == 0:
                raise LayerError(f"layer {name!r} returned one number for the whole batch")
            return tensor[:, None] if tensor.ndim == 1 else tensor
    choices = [name[: len(name) - len(path)] + item_path for item_path, _ in tensors_in(value)]
    raise LayerError(f"layer {name!r} returned no tensor there: pick one of {_list(choices)}")
