"""From the gradients of what the network sees to those of the free parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.optim.focus import Focus
from featviz.optim.gradient_evaluator import Gradients
from featviz.types import Tensor


def pulled_back(
    upstream: Gradients,
    seen: Tensor,
    shown: Tensor,
    images: Tensor,
    leaves: Sequence[Tensor],
    focus: Focus | None,
    by_images: bool,
    retain: bool,
) -> tuple[Tensor, ...]:
    """Return the gradients by ``leaves`` and, if ``by_images``, by the images.

    ``images`` are those of the parameters, ``shown`` the same at the size of the stage, and
    ``seen`` what the transforms make of them. With a ``focus`` the gradient that comes through the
    transforms is concentrated (:mod:`featviz.optim.focus`); that by the images is not.
    """
    pairs = [(shown, upstream.by_images), (seen, upstream.by_seen)]
    outputs = [x for x, gradient in pairs if gradient is not None]
    by_outputs = [gradient for _, gradient in pairs if gradient is not None]
    if focus is None or upstream.by_seen is None:
        inputs = [*leaves, images] if by_images else leaves
        return torch.autograd.grad(outputs, inputs, by_outputs, retain_graph=retain)
    last: tuple[Tensor, ...] = ()
    if by_images:
        last = torch.autograd.grad(outputs, images, by_outputs, retain_graph=True)
    (by_shown,) = torch.autograd.grad(seen, shown, upstream.by_seen, retain_graph=True)
    by_shown = focus(by_shown)
    if upstream.by_images is not None:
        by_shown = by_shown + upstream.by_images
    return (*torch.autograd.grad(shown, leaves, by_shown, retain_graph=retain), *last)
