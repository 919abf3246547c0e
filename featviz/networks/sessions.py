"""Evaluate and freeze a network for a while, and restore it afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn

#: Flags of timm, transformers and Swin's authors that recompute blocks in the backward pass, in
#: which activations inside a block may have no gradient.
_CHECKPOINTING = ("grad_checkpointing", "gradient_checkpointing", "use_checkpoint")


@contextlib.contextmanager
def evaluated_and_frozen(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Set evaluation mode, no gradients of parameters and no checkpointing within the context.

    Afterwards all modes, flags and ``requires_grad`` are what they were, also after an exception.
    """
    modules = list({id(m): m for net in networks for m in net.modules()}.values())
    modes = [(m, m.training) for m in modules]
    flags = [(p, p.requires_grad) for net in networks for p in net.parameters()]
    checkpointed = [(m, f) for m in modules for f in _CHECKPOINTING if m.__dict__.get(f) is True]
    try:
        for module, _ in modes:
            module.training = False
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        for module, flag in checkpointed:
            setattr(module, flag, False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag_before in flags:
            parameter.requires_grad_(flag_before)
        for module, flag in checkpointed:
            setattr(module, flag, True)
