"""Capture the activations of layers by name, leaving no trace in the network.

What is captured is the tensor that the network goes on with, so that later layers have gradients
with respect to it. Where the network modifies that tensor in place (``x += shortcut``), it goes on
with a copy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from featviz.errors import LayerError
from featviz.networks.attention import PatternTaker
from featviz.networks.layers import (
    GIVEN,
    INPUT,
    MAP,
    OUTPUT,
    PATTERN,
    LayerTable,
    module_names,
    split_address,
)
from featviz.networks.nested import select
from featviz.networks.taking import Capture, StopForward
from featviz.types import Tensor


def capture(
    net: nn.Module,
    run: Callable[[], Any],
    images: Tensor,
    names: Iterable[str],
    table: LayerTable,
    overwritten: frozenset[str] = frozenset(),
) -> dict[str, Tensor]:
    """Run the network as far as needed and return the activations called ``names``.

    The pass ends as soon as the last of them is known. Activations are what the layer returned,
    even if a later operation modifies them in place. Hooks are registered on the named modules
    only, and are removed when this returns or raises.

    ``overwritten`` adds to the layers that ``table`` lists as modified in place. A part of a
    module's own input that it returns, and that is modified later, has no gradient to later layers.

    Raises
    ------
    LayerError
        If a layer of ``names`` is not in ``table`` or does not run for these images.
    """
    names = tuple(dict.fromkeys(names))
    requests: dict[str, dict[int, list[tuple[str, str]]]] = {}
    outputs: list[str] = []
    missing = 0
    modified = set(overwritten)
    activations: dict[str, Tensor] = {}
    for name in names:
        module, call, path = split_address(name)
        if module == INPUT:
            activations[name] = images
        elif module == OUTPUT:
            outputs.append(name)
        else:
            info = table.find(name)
            number = info.calls - 1 if call is None else call
            requests.setdefault(module, {}).setdefault(number, []).append((name, path))
            missing += 1
            modified |= {name} if info.overwritten else set()
    if not missing and not outputs:
        return activations
    state = Capture(missing, bool(outputs), frozenset(modified), len(images), activations)
    taker = PatternTaker(state.pattern)
    modules = module_names(net)
    handles = []
    patterns = False
    for module, calls in requests.items():
        if module in modules:
            hook = modules[module].register_forward_hook(state.hook(calls), with_kwargs=True)
        elif module.endswith(MAP):
            name = module.removesuffix(MAP)
            hook = modules[name].register_forward_hook(
                state.hook(calls, table.windows[name]), with_kwargs=True
            )
        elif module.endswith(PATTERN):
            begin, end = state.around(calls, taker)
            attends = modules[module.removesuffix(PATTERN)]
            handles.append(attends.register_forward_pre_hook(begin))
            hook = attends.register_forward_hook(end)
            patterns = True
        else:
            given = modules[module.removesuffix(GIVEN)]
            hook = given.register_forward_pre_hook(state.pre_hook(calls), with_kwargs=True)
        handles.append(hook)
    try:
        with taker if patterns else contextlib.nullcontext():
            output = run()
        for name in outputs:
            tensor = select(output, split_address(name)[2], name)
            activations[name] = tensor[:, None] if tensor.ndim == 1 else tensor
    except StopForward:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if state.changed - overwritten:  # not so in the probing pass: once more, with copies
        return capture(net, run, images, names, table, overwritten | state.changed)
    for calls in requests.values():
        for name, _ in (pair for pairs in calls.values() for pair in pairs):
            if name not in activations:
                raise LayerError(f"layer {name!r} did not run for this input")
    return activations


__all__ = ["capture"]
