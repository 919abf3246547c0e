"""List the layers of a network for one size of its images, and explain why it cannot be run."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from featviz import process_state
from featviz.errors import LayerError, ModelError
from featviz.networks.axes import OTHER, UNIT
from featviz.networks.layers import MAP, LayerTable, module_names
from featviz.networks.preprocessing import crop_hint
from featviz.networks.probing import probe
from featviz.networks.running import RunnableNetwork
from featviz.networks.windows import find_windows
from featviz.networks.wrapping import why_unseen
from featviz.types import LayerInfo


@process_state.shielded
def list_layers(
    network: RunnableNetwork,
    size: tuple[int, ...],
    like: LayerTable | None,
    axes: Mapping[str, int],
) -> LayerTable:
    """Run a network once, on a gray image, and return the table of its layers.

    ``like`` is the table for another size, and ``axes`` has declared unit axes; see
    :func:`~featviz.networks.probing.probe`.

    Raises
    ------
    ModelError
        If the network cannot take images of this size.
    LayerError
        If ``axes`` names a layer that does not exist, or an axis that it does not have.
    """
    images = torch.full((1, network.channels, *size), 0.5, device=network.device)
    with network.session():
        try:
            table = probe(network.net, lambda: network.forward(images), images, like, axes)
        except LayerError:
            raise
        except (RuntimeError, ValueError, IndexError, AssertionError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            if isinstance(error, TypeError) and network.call is None:
                reason += "; say how it is called: fv.Model(net, call=lambda net, x: …)"
            raise ModelError(
                f"the network cannot take images of shape {tuple(images.shape)} "
                f"(model size {network.size}): {reason}{crop_hint(size, network.size)}"
            ) from error
    _put_windows_back(network, size, table)
    table.remark = why_unseen(network.net)
    return table


def _put_windows_back(network: RunnableNetwork, size: tuple[int, ...], table: LayerTable) -> None:
    """Add to a table the maps of its layers of windows, as far as they can be followed."""
    modules = module_names(network.net)
    windowed = {i.name: i for i in table if i.name in modules and not i.batched and not i.guessed}
    if len(size) != 2 or not windowed:
        return
    images = torch.full((2, network.channels, *size), 0.5, device=network.device)
    axes = {name: info.axis for name, info in windowed.items()}
    with network.session():
        try:
            table.windows = find_windows(modules, lambda: network.forward(images), images, axes)
        except (RuntimeError, ValueError, IndexError, AssertionError, TypeError):
            return  # it takes single images only: these layers stay refused, as they were
    for name, windows in table.windows.items():
        info = windowed[name]
        table.inputs[name + MAP] = LayerInfo(
            name + MAP, info.type, (info.units, *windows.side), 1, info.units, info.calls,
            (OTHER, UNIT, "0", "1"),
        )  # fmt: skip
