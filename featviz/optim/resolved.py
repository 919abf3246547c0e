"""Settings with all defaults resolved for a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives.scene import Target
from featviz.optim.views import seen_in_views
from featviz.param import Param
from featviz.param import text as param_text
from featviz.transforms import Transform, output_size
from featviz.transforms import text as transforms_text
from featviz.types import OptimizerFactory, Precision, Schedule
from featviz.validation import fits_memory

if TYPE_CHECKING:
    from featviz.optim.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """:class:`Settings` with all defaults resolved; ``record`` is the same as JSON values.

    ``settings`` resolves to the same plan without being parsed again.
    """

    settings: Settings
    param: Param
    transforms: tuple[Transform, ...]
    steps: int
    optimizer: OptimizerFactory
    schedule: Schedule | None
    prior: float
    coarse: float
    focus: float
    redirect: int
    precision: Precision
    compile: bool
    record: dict[str, Any]

    def image_channels(self, model: Model) -> int:
        """Return the number of channels of the images, including any opacity channel."""
        return (self.param.channels or model.channels) + self.param.transparent

    def check(self, model: Model, objective: Objective, batch: int) -> None:
        """Raise :class:`FeatvizError` if an objective does not fit the network."""
        channels = self.image_channels(model)
        size = self.param.shape
        if seen_in_views(model, size, self.transforms):
            size = output_size(self.transforms, size)
        objective.bind(Target(model, size, batch, channels))


def record_of(
    settings: Settings, param: Param, transforms: Sequence[Transform], default_optimizer: str
) -> dict[str, Any]:
    """Return settings without open defaults as JSON values, as output files store them."""
    optimizer, schedule = settings.optimizer, settings.schedule
    return {
        "steps": settings.steps,
        "size": list(param.shape),
        "param": param_text(param),
        "transforms": transforms_text(transforms),
        "optimizer": default_optimizer if optimizer is None else _name(optimizer, None),
        "lr": settings.lr,
        "schedule": schedule if isinstance(schedule, str) or schedule is None else _name(schedule),
        "weight_decay": settings.weight_decay,
        "prior": settings.prior,
        "coarse": settings.coarse,
        "focus": settings.focus,
        "redirect": settings.redirect,
        "precision": settings.precision,
    }


def check_memory(model: Model, param: Param, transforms: Sequence[Transform] = ()) -> None:
    """Raise :class:`FeatvizError` if an image, or what a transform makes of it, is too large."""
    channels, size = param.channels or model.channels, param.shape
    fits_memory("an image", (channels, *size))
    for transform in transforms:
        size = transform.output_size(size)
        fits_memory("an image", (channels, *size))


def _name(function: Callable[..., Any], default: str | None = "") -> str | None:
    """Return the name of a function; if it has none, its repr, or ``default`` if that is given."""
    return getattr(function, "__name__", repr(function) if default == "" else default)
