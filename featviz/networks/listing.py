"""List the layers of a network for one size of its images, and explain why it cannot be run."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from featviz import process_state
from featviz.errors import LayerError, ModelError
from featviz.networks.layers import LayerTable
from featviz.networks.preprocessing import crop_hint
from featviz.networks.probing import probe
from featviz.networks.running import RunnableNetwork
from featviz.networks.wrapping import why_unseen


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
    table.remark = why_unseen(network.net)
    return table
