"""Make the rows of a batch: optimize its images, score them again, encode them."""

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
from featviz.atlases.plan import Picture, Template, describe
from featviz.errors import FeatvizError, OptimizationError
from featviz.io import images, sheets
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.objectives import objective as as_objective
from featviz.optim.callbacks import Callback, Step
from featviz.optim.loop import optimize
from featviz.optim.result import slug
from featviz.optim.settings import Plan, Settings
from featviz.optim.tracing import PAYS, TraceCache
from featviz.rendering.held_out import APART, held_out
from featviz.types import Tensor

Row: TypeAlias = dict[str, Any]

#: Quality of a lossy WebP: no difference is seen at it.
WEBP = 92


@dataclasses.dataclass(frozen=True)
class Brief:
    """All that a worker has to know; it can be sent to another process."""

    model: Model
    settings: Settings
    encoding: str  # "png" or "webp"
    template: Template = None
    device: str | torch.device | None = None

    @functools.cached_property
    def home(self) -> Model:
        """The model on the device where the images are made."""
        return self.model.on(devices.resolve(self.device, self.model.device))

    @functools.cached_property
    def plan(self) -> Plan:
        """The settings, resolved."""
        return self.settings.resolve(self.home)

    @functools.cached_property
    def identity(self) -> tuple[str, dict[str, Any]]:
        """The hash of the settings, and the settings; see :func:`featviz.atlases.plan.describe`."""
        return describe(self.home, self.plan, self.template, self.encoding)

    def on(self, device: str) -> Brief:
        """Return the brief of a worker that has a device of its own."""
        return dataclasses.replace(self, device=device)


class Painter:
    """Makes batches of images of one network; keeps the trace of a layer for its next batch."""

    def __init__(
        self, brief: Brief, callbacks: Sequence[Callback | Callable[[Step], Any]] = ()
    ) -> None:
        self.callbacks = callbacks
        self.brief, self.model, self.plan = brief, brief.home, brief.plan
        self._layer: str | None = None
        self._traces: TraceCache | None = None

    def __call__(self, batch: Sequence[Picture]) -> list[Row]:
        """Return the rows of a batch; one that cannot be optimized says why in ``failure``.

        Raises
        ------
        KeyboardInterrupt
            For Ctrl-C: an image that is not finished is not kept.
        """
        if batch[0].layer != self._layer:
            self._layer = batch[0].layer
            self._traces = TraceCache() if self.plan.steps >= PAYS else None
        begun = time.perf_counter()
        goal = as_objective([picture.objective for picture in batch])
        seeds = [picture.seed for picture in batch]
        try:
            result = optimize(
                self.model,
                goal,
                seeds=seeds,
                settings=self.plan.settings,
                traces=self._traces,
                callbacks=self.callbacks,
            )
        except OptimizationError as error:
            result = error.result
        if result.interrupted:
            raise KeyboardInterrupt
        kept = self._held_out(goal, result.images, seeds)
        seconds = (time.perf_counter() - begun) / len(batch)
        digest, settings = self.brief.identity
        return [
            {
                **dataclasses.asdict(picture),
                "settings_hash": digest,
                "image": {
                    "bytes": encode(result.images[i], self.brief.encoding),
                    "path": f"{slug(picture.objective)}.seed{picture.seed}.{self.brief.encoding}",
                },
                "score": _finite(result.scores[i]),
                "score_held_out": _finite(kept[i]),
                "seconds": seconds,
                "redirected": bool(result.redirected is not None and result.redirected[i]),
                "failure": result.failures.get(i),
                "settings": json.dumps(result.settings),
                "versions": json.dumps(versions()),
                "model_hash": settings["model_hash"],
            }
            for i, picture in enumerate(batch)
        ]

    def _held_out(self, goal: Any, pictures: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return the mean score (B,) under draws of transforms that no step has seen."""
        if self.plan.param.transparent:
            return torch.full((len(pictures),), math.nan)
        return held_out(self.model, goal, pictures, [s + APART for s in seeds])


def encode(picture: Tensor, encoding: str) -> bytes:
    """Return an image (C, H, W) in [0, 1] as a file: ``png``, or ``webp`` with some loss."""
    if encoding == "png":
        return images.png_bytes(sheets.to_pil(picture))
    buffer = io.BytesIO()
    sheets.to_pil(picture).save(buffer, "webp", quality=WEBP)
    return buffer.getvalue()


def check(brief: Brief) -> None:
    """Raise :class:`FeatvizError` unless the images can be stored as such."""
    param, channels = brief.plan.param, brief.plan.image_channels(brief.home)
    if len(param.shape) != 2 or channels not in (1, 3, 4):
        raise FeatvizError(
            f"an atlas holds gray or RGB images, not {channels} channels of {param.shape}"
        )
    if param.relational:
        raise FeatvizError("an atlas holds images that stand alone: take another param")
    if brief.encoding not in ("png", "webp"):
        raise FeatvizError(f"no encoding {brief.encoding!r}: it is png or webp")
    if brief.encoding == "webp" and not features.check("webp"):
        raise FeatvizError("this Pillow writes no WebP: take encoding='png'")


@functools.cache
def versions() -> dict[str, str]:
    """Return what the images are made with."""
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
