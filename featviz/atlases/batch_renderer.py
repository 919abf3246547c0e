"""Render the rows of a batch: optimize its images, score them on held-out views, encode them."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy
import PIL
import torch
from PIL import features

from featviz._version import __version__
from featviz.atlases.plan import PlannedImage, Template, describe
from featviz.errors import FeatvizError, OptimizationError
from featviz.io import images, sheets
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.objectives import objective as as_objective
from featviz.optim.callbacks import Callback, Step
from featviz.optim.loop import optimize
from featviz.optim.resolved import Plan
from featviz.optim.result import slug
from featviz.optim.settings import Settings
from featviz.optim.tracing import PAYS, TraceCache
from featviz.rendering.held_out import SEED_OFFSET, held_out
from featviz.types import Tensor

Row: TypeAlias = dict[str, Any]

#: Quality of lossy WebP, at which no difference is visible.
WEBP = 92


@dataclasses.dataclass(frozen=True)
class AtlasJob:
    """Everything that a worker needs to render batches; it can be pickled."""

    model: Model
    settings: Settings
    encoding: str  # "png" or "webp"
    template: Template = None
    device: str | torch.device | None = None

    @functools.cached_property
    def network(self) -> Model:
        """The model on the device where the images are rendered."""
        return self.model.on(devices.resolve(self.device, self.model.device))

    @functools.cached_property
    def plan(self) -> Plan:
        """The settings, resolved."""
        return self.settings.resolve(self.network)

    @functools.cached_property
    def identity(self) -> tuple[str, dict[str, Any]]:
        """The hash of the settings, and the settings: :func:`featviz.atlases.plan.describe`."""
        return describe(self.network, self.plan, self.template, self.encoding)

    def on(self, device: str) -> AtlasJob:
        """Return the job for a worker with a device of its own."""
        return dataclasses.replace(self, device=device)


class BatchRenderer:
    """Renders batches of images of one network, and reuses the trace of a layer between batches."""

    def __init__(
        self, job: AtlasJob, callbacks: Sequence[Callback | Callable[[Step], Any]] = ()
    ) -> None:
        self.callbacks = callbacks
        self.job, self.model, self.plan = job, job.network, job.plan
        self._layer: str | None = None
        self._traces: TraceCache | None = None

    def __call__(self, batch: Sequence[PlannedImage]) -> list[Row]:
        """Return the rows of a batch; ``failure`` says why an image could not be optimized.

        Raises
        ------
        KeyboardInterrupt
            For Ctrl-C; unfinished images are discarded.
        """
        if batch[0].layer != self._layer:
            self._layer = batch[0].layer
            self._traces = TraceCache() if self.plan.steps >= PAYS else None
        started = time.perf_counter()
        objective = as_objective([planned.objective for planned in batch])
        seeds = [planned.seed for planned in batch]
        try:
            result = optimize(
                self.model,
                objective,
                seeds=seeds,
                settings=self.plan.settings,
                traces=self._traces,
                callbacks=self.callbacks,
            )
        except OptimizationError as error:
            result = error.result
        if result.interrupted:
            raise KeyboardInterrupt
        held_out_scores = self._held_out(objective, result.images, seeds)
        seconds = (time.perf_counter() - started) / len(batch)
        digest, settings = self.job.identity
        return [
            {
                **dataclasses.asdict(planned),
                "settings_hash": digest,
                "image": {
                    "bytes": encode(result.images[i], self.job.encoding),
                    "path": f"{slug(planned.objective)}.seed{planned.seed}.{self.job.encoding}",
                },
                "score": _finite(result.scores[i]),
                "score_held_out": _finite(held_out_scores[i]),
                "seconds": seconds,
                "redirected": bool(result.redirected is not None and result.redirected[i]),
                "failure": result.failures.get(i),
                "settings": json.dumps(result.settings),
                "versions": json.dumps(versions()),
                "model_hash": settings["model_hash"],
            }
            for i, planned in enumerate(batch)
        ]

    def _held_out(self, objective: Any, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return the mean score (B,) under held-out transforms; NaN for transparent images."""
        if self.plan.param.transparent:
            return torch.full((len(images),), math.nan)
        return held_out(self.model, objective, images, [s + SEED_OFFSET for s in seeds])


def encode(image: Tensor, encoding: str) -> bytes:
    """Encode an image (C, H, W) in [0, 1] as ``png`` or, with some loss, as ``webp``."""
    if encoding == "png":
        return images.png_bytes(sheets.to_pil(image))
    buffer = io.BytesIO()
    sheets.to_pil(image).save(buffer, "webp", quality=WEBP)
    return buffer.getvalue()


def check(job: AtlasJob) -> None:
    """Raise :class:`FeatvizError` if the images cannot be stored in an atlas."""
    param, channels = job.plan.param, job.plan.image_channels(job.network)
    if len(param.shape) != 2 or channels not in (1, 3, 4):
        raise FeatvizError(
            f"an atlas needs gray or RGB images, not {channels} channels of {param.shape}"
        )
    if param.relational:
        raise FeatvizError("an atlas needs independent images: use another param")
    if job.encoding not in ("png", "webp"):
        raise FeatvizError(f"no encoding {job.encoding!r}: use png or webp")
    if job.encoding == "webp" and not features.check("webp"):
        raise FeatvizError("this Pillow has no WebP support: use encoding='png'")


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of the software that renders the images."""
    import kornia

    return {
        "featviz": __version__,
        "torch": torch.__version__,
        "kornia": kornia.__version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
    }


def _finite(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
