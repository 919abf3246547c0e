"""The truncated pass as a flat list of tensor operations, without what only costs time.

A network is traced once for a run, so that the steps call no module and no hook. The graph is then
shortened (:mod:`featviz.optim.folding`), and what it computes stays the same up to rounding. A
layer whose activation is needed keeps it: nothing is folded across it. Weights are copied where
they change; the network itself is never touched.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

from featviz.errors import FeatvizWarning
from featviz.optim.folding import fold_batchnorm, fuse_activations, merge_padding
from featviz.optim.fusion import Switch
from featviz.optim.torch_internals import flat_graph
from featviz.types import Tensor

#: From how many passes on a run saves more time than tracing takes. Not the number of images:
#: an image has to be the same alone and with others, also in its last bits.
PAYS = 32
#: How far activations may be from the network's own, relative to the largest of them.
TOLERANCE = 1e-4
#: How far gradients may be from the network's own, relative to their norm: rounding makes a few
#: units of ReLUs cross their kinks.
GRADIENT_TOLERANCE = 0.1

#: Images (B, C, *spatial) to activations, in a fixed order.
Pass: TypeAlias = Callable[[Tensor], Sequence[Tensor]]


class Traced:
    """A flat pass: images (B, C, *spatial), of one batch size, to the activations needed.

    With ``switch.redirect`` its ReLUs are redirected (:class:`featviz.gradients.redirected_relu`).
    """

    def __init__(self, run: Pass, images: Tensor) -> None:
        self.switch = Switch()
        images = images.detach()
        self.graph = flat_graph(run, images)
        cpu = images.device.type == "cpu"
        self.channels_last = cpu and images.ndim == 4  # oneDNN's own layout
        fold_batchnorm(self.graph)
        merge_padding(self.graph)
        fuse_activations(self.graph, self.switch, rowwise=cpu)
        self.graph.graph.eliminate_dead_code()
        self.graph.delete_all_unused_submodules()
        self.graph.recompile()
        self.call: Pass = self.graph

    def __call__(self, images: Tensor) -> Sequence[Tensor]:
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.call(images)

    def compiled(self) -> Traced:
        """Compile the graph with ``torch.compile``, with CUDA graphs on a GPU."""
        mode = "reduce-overhead" if torch.cuda.is_available() else None
        self.call = torch.compile(self.graph, dynamic=False, mode=mode)
        return self


def trace(
    run: Pass, images: Tensor, *, compiled: bool = False, checked: bool = True
) -> Traced | None:
    """Return ``run`` as a flat pass, or None, with a warning, where it cannot be traced.

    Unless the caller compares the results anyway (``checked=False``), the trace is checked on
    ``images``: its activations equal the network's own up to :data:`TOLERANCE` and its gradients up
    to :data:`GRADIENT_TOLERANCE`. A branch on the data, or a gradient of the network's own making,
    would show there.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = Traced(run, images)
            wrong = _difference(run, traced, images) if checked else None
    except Exception as error:
        # Whatever a network does that cannot be traced: its own forward pass still works.
        wrong = " ".join(str(error).split())[:120] or type(error).__name__
    if wrong:
        warnings.warn(
            f"the network runs untraced, and slower: it cannot be traced ({wrong})",
            FeatvizWarning,
            stacklevel=2,
        )
        return None
    return traced.compiled() if compiled else traced


def _difference(run: Pass, traced: Pass, images: Tensor) -> str | None:
    """Say how a traced pass differs from the network's own, or return None."""
    results = []
    for call in (run, traced):
        shown = images.detach().requires_grad_()
        activations = [a.float() for a in call(shown)]
        waves = [torch.arange(a.numel(), device=a.device).sin().view_as(a) for a in activations]
        sums = [(a * w).sum() for a, w in zip(activations, waves, strict=True)]
        total = torch.stack(sums).sum()
        gradient = None
        if total.requires_grad:
            (gradient,) = torch.autograd.grad(total, shown, allow_unused=True)
        results.append(([a.detach() for a in activations], gradient))
    (expected, expected_gradient), (actual, gradient) = results
    for one, other in zip(expected, actual, strict=True):
        if one.shape != other.shape:
            return f"shape {tuple(other.shape)} instead of {tuple(one.shape)}"
        finite = one.isfinite()
        if not torch.equal(finite, other.isfinite()):
            return "its activations change"
        largest = torch.where(finite, one, 0).abs().max()
        if not torch.where(finite, one - other, 0).abs().max() <= TOLERANCE * largest:
            return "its activations change"
    if (expected_gradient is None) != (gradient is None):
        return "its gradient changes"
    if expected_gradient is None or gradient is None or not expected_gradient.isfinite().all():
        return None
    error = (expected_gradient - gradient).norm()
    return (
        None if error <= GRADIENT_TOLERANCE * expected_gradient.norm() else "its gradient changes"
    )


@dataclasses.dataclass
class TraceCache:
    """Traced passes of one network in one precision, shared by several runs.

    ``passes`` holds them by the shape that they take and the layers that they return. ``batchwise``
    notes whether samples that went through the network together differed in their last bits from
    those that went alone; None as long as that is not known.
    """

    passes: dict[tuple[tuple[int, ...], tuple[str, ...]], Traced | None] = dataclasses.field(
        default_factory=dict
    )
    batchwise: bool | None = None

    def find(
        self, run: Pass, images: Tensor, needs: tuple[str, ...], *, compiled: bool = False
    ) -> Traced | None:
        """Return the traced pass for images like these, tracing it now if need be; or None."""
        key = tuple(images.shape), needs
        if key not in self.passes:
            # A pass of several samples is compared with that of one, to the bit, by who uses it.
            single = (1, *images.shape[1:]), needs
            known = single in self.passes
            if known and self.passes[single] is None:
                self.passes[key] = None
            else:
                self.passes[key] = trace(run, images, compiled=compiled, checked=not known)
        return self.passes[key]
