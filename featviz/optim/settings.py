"""What a run of pictures is made with, apart from their objectives and seeds."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz._version import __version__
from featviz.errors import FeatvizError
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives.scene import Target
from featviz.optim.callbacks import Callback, Step
from featviz.optim.evaluator import Traces
from featviz.optim.loop import REDIRECT, optimize
from featviz.optim.optimizers import adam, default_rate
from featviz.optim.quality import find as find_quality
from featviz.optim.result import Result
from featviz.optim.tracing import PAYS
from featviz.param import Fourier, Param
from featviz.param import parse as parse_param
from featviz.param import text as param_text
from featviz.transforms import Transform
from featviz.transforms.presets import check as check_transforms
from featviz.transforms.presets import text as transforms_text
from featviz.types import OptimizerFactory, Precision, Schedule, Size
from featviz.validation import positive_int

#: How many pictures are optimized side by side unless the caller says otherwise. A GPU starts with
#: many: where its memory is too small for them, they go through the network in halves.
BATCH_SIZE = 16
BATCH_SIZE_GPU = 128


@dataclasses.dataclass(frozen=True)
class Job:
    """A model on its device, and how a picture is optimized; :func:`prepare` checks all of it.

    ``settings`` says the same in words and numbers, for the files that are written.
    """

    model: Model
    param: Param
    transforms: tuple[Transform, ...]
    steps: int
    optimizer: OptimizerFactory
    schedule: Schedule | None
    redirect: int
    precision: Precision
    compile: bool
    settings: dict[str, Any]

    @property
    def batch_size(self) -> int:
        """How many pictures go at once where nobody says."""
        return BATCH_SIZE if self.model.device.type == "cpu" else BATCH_SIZE_GPU

    def traces(self) -> Traces | None:
        """Return where batches keep the traced network for the next; None if it does not pay."""
        return Traces() if self.steps >= PAYS else None

    def check(self, goal: Objective, batch: int) -> None:
        """Raise :class:`FeatvizError` if ``goal`` does not fit the network."""
        channels = (self.param.channels or self.model.channels) + self.param.transparent
        goal.bind(Target(self.model, self.param.shape, batch, channels))

    def run(
        self,
        goal: Objective,
        seeds: Sequence[int],
        *,
        callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
        settings: dict[str, Any] | None = None,
        traces: Traces | None = None,
    ) -> Result:
        """Optimize one batch, as :func:`featviz.optimize` does."""
        return optimize(
            self.model,
            goal,
            param=self.param,
            transforms=self.transforms,
            steps=self.steps,
            seeds=list(seeds),
            optimizer=self.optimizer,
            schedule=self.schedule,
            redirect=self.redirect,
            precision=self.precision,
            compile=self.compile,
            callbacks=callbacks,
            settings=self.settings if settings is None else settings,
            traces=traces,
        )


def prepare(
    model: Model,
    *,
    param: Param | str | None = None,
    transforms: Sequence[Transform] | str | None = None,
    quality: str = "standard",
    steps: int | None = None,
    size: Size | None = None,
    optimizer: OptimizerFactory | None = None,
    lr: float | None = None,
    schedule: Schedule | None = None,
    redirect: int = REDIRECT,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    compile: bool = False,
) -> Job:
    """Return the job that the arguments of :func:`featviz.render` describe.

    Raises
    ------
    FeatvizError
        For arguments that cannot work, or do not go together.
    """
    preset = find_quality(quality)
    steps = positive_int("steps", preset.steps if steps is None else steps)
    if lr is not None and not lr > 0:
        raise FeatvizError(f"lr must be positive, not {lr}")
    home = model.on(devices.resolve(device, model.device))
    chosen = parse_param(param) if isinstance(param, str) else param or Fourier()
    if size is not None:
        if chosen.size is not None and chosen.shape != dataclasses.replace(chosen, size=size).shape:
            raise FeatvizError(f"size {size} does not fit a parameterization of {chosen.shape}")
        chosen = dataclasses.replace(chosen, size=size)
    chosen = chosen.sized(model.channels, model.size)
    if transforms is None:
        flat = len(chosen.shape) == 2
        changes = check_transforms(preset.transforms if flat else "jitter,noise")
    else:
        changes = check_transforms(transforms)
    if lr is None and optimizer is None:
        lr = default_rate(steps) * chosen.rate
    return Job(
        model=home,
        param=chosen,
        transforms=changes,
        steps=steps,
        optimizer=_optimizer(optimizer, lr),
        schedule=schedule,
        redirect=redirect,
        precision=precision,
        compile=compile,
        settings={
            "version": __version__,
            "model": model.name,
            "steps": steps,
            "size": list(chosen.shape),
            "param": param_text(chosen),
            "transforms": transforms_text(changes),
            "optimizer": "adam" if optimizer is None else getattr(optimizer, "__name__", None),
            "lr": lr,
            "schedule": None if schedule is None else getattr(schedule, "__name__", repr(schedule)),
            "redirect": redirect,
            "precision": precision,
        },
    )


def _optimizer(optimizer: OptimizerFactory | None, lr: float | None) -> OptimizerFactory:
    if optimizer is not None and not callable(optimizer):
        raise FeatvizError("optimizer must be a torch.optim class or a function of the parameters")
    if optimizer is None:
        assert lr is not None
        return adam(lr)
    if lr is None:
        return optimizer
    if not isinstance(optimizer, type):
        raise FeatvizError("lr goes with a torch.optim class; an optimizer function has its own")
    return functools.partial(optimizer, lr=lr)
