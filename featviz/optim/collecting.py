"""Collect the activations of many images, in batches and without gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from featviz.networks.layers import OUTPUT
from featviz.networks.model import Model
from featviz.optim.batching import evaluated_together, in_batches
from featviz.optim.forward import ForwardPass
from featviz.optim.tracing import TraceCache
from featviz.types import Precision, Tensor


def collect(
    model: Model,
    images: Tensor,
    names: Sequence[str],
    reduce: Callable[[str, Tensor], Tensor] | None = None,
    *,
    batch_size: int | None = None,
    precision: Precision = "fp32",
    traces: TraceCache | None = None,
) -> dict[str, Tensor]:
    """Return the activations of the layers ``names`` for images (B, C, *size), on the CPU, by name.

    ``reduce`` maps the layer name and the activation of each batch to the tensor to collect. With
    ``traces``, full batches run traced; a smaller last batch runs untraced, since its own trace
    would not pay off.
    """
    size = tuple(images.shape[2:])
    full_batch = evaluated_together(model.device, batch_size)
    forward = ForwardPass(
        model,
        size,
        precision=precision,
        traced=traces is not None,
        traced_batch=full_batch,
        traces=traces,
    )

    def run(rows: slice) -> dict[str, Tensor]:
        activations = forward.activations(images[rows].to(model.device), names)
        return {n: (a if reduce is None else reduce(n, a)).cpu() for n, a in activations.items()}

    with model.session(), torch.no_grad():
        parts = list(in_batches(len(images), full_batch, size, run))
    return {name: torch.cat([part[name] for part in parts]) for name in names}


def predicted_classes(
    model: Model,
    images: Tensor,
    layer: str | None,
    *,
    batch_size: int | None = None,
    traces: TraceCache | None = None,
) -> Tensor:
    """Return the class (B,) with the highest logit in ``layer``; -1 if that is None."""
    if layer is None:
        return torch.full((len(images),), -1)
    return collect(
        model, images, [layer], lambda _, a: a.argmax(1), batch_size=batch_size, traces=traces
    )[layer]


def logits_layer(model: Model, size: tuple[int, ...]) -> str | None:
    """Return the name of the layer with the class logits, or None if the output is not logits."""
    table = model.layers(size)
    if model.logits == OUTPUT and all(info.name != OUTPUT for info in table):
        return None  # several outputs
    info = table.find(model.logits)
    return model.logits if not info.positions and info.units > 1 else None
