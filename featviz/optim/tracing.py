"""Trace the truncated forward pass into a flat graph of tensor operations, to save overhead.

A network is traced once per run, so that the steps call no modules and no hooks. The graph is then
shortened (:mod:`featviz.optim.folding`), with the same results up to rounding. Nothing is folded
across a layer whose activation is needed. Folded weights are copies; the network itself is never
modified.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from featviz.errors import FeatvizWarning
from featviz.networks.model import Model
from featviz.networks.noise import NetworkNoise
from featviz.optim.clipping import Switch
from featviz.optim.folding import fold_batchnorm, fold_noise, fuse_activations, merge_padding
from featviz.optim.torch_internals import flat_graph
from featviz.process_state import ProcessLock
from featviz.types import Tensor

#: Number of passes from which tracing saves more time than it takes. The number of images does not
#: count: an image must be bitwise identical alone and in a batch.
PAYS = 32
#: Tolerance for activations, relative to the largest activation of the untraced network.
TOLERANCE = 1e-4
#: Tolerance for gradients, relative to the norm of the untraced network's: rounding makes a few
#: ReLU inputs cross zero.
GRADIENT_TOLERANCE = 0.1

#: Images (B, C, *spatial) to activations, in a fixed order.
Pass: TypeAlias = Callable[[Tensor], Sequence[Tensor]]


class Traced:
    """A traced pass from images (B, C, *spatial) of one batch size to the activations needed.

    ``switch.redirect`` redirects its ReLUs (:class:`featviz.networks.gradients.redirected_relu`).
    ``noise`` is the noise in the network that ``run`` applies, if any.
    """

    def __init__(self, run: Pass, images: Tensor, noise: NetworkNoise | None = None) -> None:
        self.switch = Switch(noise=noise)
        images = images.detach()
        self.graph = flat_graph(run, images)
        cpu = images.device.type == "cpu"
        self.channels_last = cpu and images.ndim == 4  # oneDNN's native layout
        fold_batchnorm(self.graph)
        if noise is not None:
            fold_noise(self.graph, noise)
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


#: torch.fx patches torch for the whole process while it traces: one thread at a time.
_TRACING = ProcessLock()


def trace(
    run: Pass,
    images: Tensor,
    *,
    noise: NetworkNoise | None = None,
    compiled: bool = False,
    checked: bool = True,
) -> Traced | None:
    """Return a traced version of ``run``, or None, with a warning, if it cannot be traced.

    Unless ``checked`` is false, the trace is compared with the untraced network on ``images``: the
    activations have to agree within :data:`TOLERANCE` and the gradients within
    :data:`GRADIENT_TOLERANCE`. This detects data-dependent control flow and custom gradients.
    """
    try:
        with _TRACING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = Traced(run, images, noise)
            reason = _difference(run, traced, images) if checked else None
    except Exception as error:
        # Whatever the reason why the network cannot be traced, it still works untraced.
        reason = " ".join(str(error).split())[:120] or type(error).__name__
    if reason:
        warnings.warn(
            f"the network cannot be traced and runs untraced, which is slower ({reason})",
            FeatvizWarning,
            stacklevel=2,
        )
        return None
    return traced.compiled() if compiled else traced


def _difference(run: Pass, traced: Pass, images: Tensor) -> str | None:
    """Return how a traced pass differs from the untraced one, or None if it does not."""
    results = []
    for call in (run, traced):
        inputs = images.detach().requires_grad_()
        activations = [a.float() for a in call(inputs)]
        weights = [torch.arange(a.numel(), device=a.device).sin().view_as(a) for a in activations]
        sums = [(a * weight).sum() for a, weight in zip(activations, weights, strict=True)]
        total = torch.stack(sums).sum()
        gradient = None
        if total.requires_grad:
            (gradient,) = torch.autograd.grad(total, inputs, allow_unused=True)
        results.append(([a.detach() for a in activations], gradient))
    (expected, expected_gradient), (actual, gradient) = results
    for reference, traced_activation in zip(expected, actual, strict=True):
        if reference.shape != traced_activation.shape:
            return f"shape {tuple(traced_activation.shape)} instead of {tuple(reference.shape)}"
        finite = reference.isfinite()
        if not torch.equal(finite, traced_activation.isfinite()):
            return "its activations change"
        largest = torch.where(finite, reference, 0).abs().max()
        error = torch.where(finite, reference - traced_activation, 0).abs().max()
        if not error <= TOLERANCE * largest:
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

    ``passes`` holds them by input shape, layers and noise. ``batchwise`` holds by size whether the
    results of a sample depend on the batch in the last bits, once that is known.
    """

    passes: dict[tuple[tuple[int, ...], tuple[str, ...], int], Traced | None] = dataclasses.field(
        default_factory=dict
    )
    noises: dict[tuple[Any, ...], NetworkNoise] = dataclasses.field(default_factory=dict)
    batchwise: dict[tuple[int, ...], bool] = dataclasses.field(default_factory=dict)

    def noise(
        self, model: Model, size: tuple[int, ...], *, channels: bool, branches: bool
    ) -> NetworkNoise:
        """Return the noise that traced passes of ``model`` refer to; create it if need be."""
        key = model.device, size, channels, branches
        if key not in self.noises:
            self.noises[key] = NetworkNoise(model, size, channels=channels, branches=branches)
        return self.noises[key]

    def find(
        self,
        run: Pass,
        images: Tensor,
        needs: tuple[str, ...],
        *,
        noise: NetworkNoise | None = None,
        compiled: bool = False,
    ) -> Traced | None:
        """Return the traced pass for this shape and these layers, or None; trace it if need be."""
        key = tuple(images.shape), needs, id(noise)
        if key not in self.passes:
            # The gradient evaluator compares a pass of several samples with that of a single one.
            single = (1, *images.shape[1:]), needs, id(noise)
            single_known = single in self.passes
            if single_known and self.passes[single] is None:
                self.passes[key] = None
            else:
                self.passes[key] = trace(
                    run, images, noise=noise, compiled=compiled, checked=not single_known
                )
        return self.passes[key]
