"""The truncated forward pass: from images to the activations that an objective reads."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch

from featviz.networks import devices
from featviz.networks.gradients import redirected_relu
from featviz.networks.layers import INPUT
from featviz.networks.model import Model
from featviz.networks.noise import NetworkNoise
from featviz.objectives.scene import Scene
from featviz.optim.torch_internals import overrides_active
from featviz.optim.tracing import TraceCache, Traced
from featviz.types import Precision, Tensor

_HALF_DTYPES = (torch.float16, torch.bfloat16)


class ForwardPass:
    """Runs a network on images of one size, up to the deepest layer needed.

    Use it within ``model.session()``. With ``traced`` it runs the flat graph of
    :mod:`featviz.optim.tracing`, except inside the overrides of :mod:`featviz.networks.gradients`,
    which intercept function calls, and in inference mode. With ``traced_batch``, only batches of
    that size run traced, since every other size would need a trace of its own. ``traces`` shares
    graphs between runs; ``compiled`` compiles them; ``noise`` is applied in every pass.
    """

    #: The redirection of ReLU gradients that is currently active, if any.
    redirect: redirected_relu | None = None

    def __init__(
        self,
        model: Model,
        size: tuple[int, ...],
        *,
        precision: Precision = "fp32",
        traced: bool = False,
        traced_batch: int | None = None,
        compiled: bool = False,
        traces: TraceCache | None = None,
        noise: NetworkNoise | None = None,
    ) -> None:
        self.noise = noise
        self.model, self.size, self.table = model, size, model.layers(size)
        self.half = devices.half(precision)
        self.traced, self.compiled = traced or compiled, compiled
        self.traced_batch = traced_batch
        self.traces = TraceCache() if traces is None else traces

    def activations(self, images: Tensor, needs: Sequence[str]) -> dict[str, Tensor]:
        """Return the activations of the layers ``needs`` for images (B, C, *size)."""
        needs = tuple(needs)
        with torch.autocast(images.device.type, self.half, enabled=self.half is not None):
            if self.traced and set(needs) - {INPUT}:
                traced = self._trace(images, needs)
                if traced is not None:
                    traced.switch.redirect = self.redirect
                    return dict(zip(needs, traced(images), strict=True))
            with self.redirect or contextlib.nullcontext(), self.noise or contextlib.nullcontext():
                return self.model.capture(images, needs, self.table)

    def _trace(self, images: Tensor, needs: tuple[str, ...]) -> Traced | None:
        if overrides_active():
            return None
        if self.traced_batch not in (None, len(images)):
            return None

        def run(images: Tensor) -> list[Tensor]:
            with self.noise or contextlib.nullcontext():
                activations = self.model.capture(images, needs, self.table)
            return [activations[name] for name in needs]

        with torch.enable_grad():
            return self.traces.find(run, images, needs, noise=self.noise, compiled=self.compiled)

    def scene(
        self,
        seen: Tensor,
        needs: Sequence[str],
        *,
        images: Tensor | None = None,
        progress: Tensor | float = 1.0,
    ) -> Scene:
        """Return the scene that objectives read: float32 activations for ``seen`` (B, C, *size).

        ``images`` are the clean images if the network's input differs from them; ``progress`` is
        the progress of the run, from 0 to 1.
        """
        activations = self.activations(seen, needs)
        full = {n: a.float() if a.dtype in _HALF_DTYPES else a for n, a in activations.items()}
        return Scene(seen if images is None else images, full, progress)
