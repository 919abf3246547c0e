"""Say why a network has no gradient with respect to its images, and what to do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

from featviz.errors import FeatvizError, ModelError

_QUANTIZED = (
    "torch.ao.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
    "torch.nn.quantized",
    "torch.nn.intrinsic.quantized",
)


def quantized_layers(net: nn.Module) -> str:
    """Return that quantized layers have no gradients, if the network has any."""
    for module in net.modules():
        if type(module).__module__.startswith(_QUANTIZED):
            return (
                f"its quantized layers ({type(module).__name__}) have no gradient: load it in float"
            )
    return ""


def why_no_gradient(net: nn.Module) -> str:
    """Return the likely reason and the remedy, in one clause."""
    return quantized_layers(net) or (
        "it detaches or ignores the image, or disables gradients (torch.no_grad, inference_mode): "
        "call the part behind that, fv.Model(net, call=…)"
    )


@contextlib.contextmanager
def gradient_errors_explained(net: nn.Module) -> Iterator[None]:
    """Turn torch's errors about impossible gradients into ones that name the remedy.

    Raises
    ------
    ModelError
        For checkpointed blocks that cannot be recomputed, and where gradients are missing.
    """
    try:
        yield
    except FeatvizError:
        raise
    except RuntimeError as error:
        text = str(error)
        if "torch.utils.checkpoint" in text:
            raise ModelError(
                "the network recomputes blocks in the backward pass (torch.utils.checkpoint), "
                "which changes their gradients here: switch checkpointing off in the network"
            ) from error
        if "appears to not have been used" in text or "does not require grad" in text:
            reason = why_no_gradient(net)
            raise ModelError(f"the network has no gradient: {reason}") from error
        raise
