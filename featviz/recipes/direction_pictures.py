"""Pictures of many directions of a layer, in batches; each is stored as soon as it is finished."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from featviz.atlases.plan import describe
from featviz.errors import FeatvizError, OptimizationError
from featviz.io.files import make_folder, write_bytes
from featviz.networks.model import Model
from featviz.objectives import direction, per_sample
from featviz.optim.batching import optimized_together
from featviz.optim.callbacks import Callback, Step, watched
from featviz.optim.loop import optimize
from featviz.optim.resolved import Plan
from featviz.optim.tracing import PAYS, TraceCache
from featviz.recipes.stored_tensors import read_stored
from featviz.types import Tensor

#: The power of the cosine in the objectives: pictures of a direction and of nothing else.
COSINE_POWER = 2.0


def picture_directions(
    model: Model,
    layer: str,
    vectors: Tensor,
    plan: Plan,
    *,
    seed: int = 0,
    folder: Path | None = None,
    batch_size: int | None = None,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool | None = None,
) -> Tensor:
    """Return a picture (N, C, H, W) in [0, 1] of each direction (N, K), on the CPU.

    All start from the same noise: similar directions have similar pictures. Batches share the trace
    of the network, and those that are already in ``folder`` are read instead.

    Raises
    ------
    FeatvizError
        If a batch in ``folder`` belongs to other directions, settings or another network.
    KeyboardInterrupt
        For Ctrl-C; finished batches stay in the folder.
    """
    size = optimized_together(model.device, batch_size)
    traces = TraceCache() if len(vectors) > size and plan.steps >= PAYS else None
    digest = describe(model, plan, f"{layer}:{seed}:{COSINE_POWER}", "png")[0] if folder else ""
    observers = watched(callbacks, progress)
    if folder is not None:
        make_folder(folder)
    pictures = []
    for number, batch in enumerate(vectors.split(size)):
        path = None if folder is None else folder / f"{number:05d}.safetensors"
        identity = _identity(digest, batch)
        finished = None if path is None else _read(path, identity)
        if finished is None:
            goals = [direction(layer, v, cosine_power=COSINE_POWER) for v in batch]
            try:
                result = optimize(
                    model,
                    per_sample(goals) if len(goals) > 1 else goals[0],
                    seeds=[seed] * len(batch),
                    settings=plan.settings,
                    traces=traces,
                    importance=False,
                    callbacks=observers,
                )
            except OptimizationError as error:  # a direction without a gradient: gray
                result = error.result
            if result.interrupted:
                raise KeyboardInterrupt
            finished = (result.images * 255).round().clamp(0, 255).to(torch.uint8)
            if path is not None:
                write_bytes(path, save({f"images {identity}": finished.contiguous()}))
        pictures.append(finished.float() / 255)
    return torch.cat(pictures)


def _identity(digest: str, batch: Tensor) -> str:
    content = digest.encode() + batch.contiguous().numpy().tobytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _read(path: Path, identity: str) -> Tensor | None:
    """Return the stored pictures of a batch, None if there are none."""
    tensors = read_stored(path)
    if tensors is None:
        return None
    if f"images {identity}" not in tensors:
        raise FeatvizError(
            f"{str(path)!r} was made of other images, settings or another network: name another "
            "folder"
        )
    return tensors[f"images {identity}"]
