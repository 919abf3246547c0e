"""The settings of an optimization, for Python, the command line and files.

To add a setting, add a field to :class:`Settings` and its type to :class:`SettingsKeywords`, and
use it in :meth:`Settings.resolve` and wherever it takes effect. Signatures, docstrings,
command-line options, records in files and the viewer's code panel are generated from the field.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from featviz.errors import FeatvizError
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives.scene import Target
from featviz.optim.network_noise import applicable
from featviz.optim.optimizers import SCHEDULES, adam, default_rate, find_schedule
from featviz.optim.quality import find_quality
from featviz.optim.upgrade import upgraded
from featviz.options import Options, documented, option
from featviz.param import Fourier, Param
from featviz.param import parse as parse_param
from featviz.param import text as param_text
from featviz.transforms import Transform
from featviz.transforms.foreign import adapted
from featviz.transforms.presets import check as check_transforms
from featviz.transforms.presets import text as transforms_text
from featviz.types import (
    OptimizerFactory,
    Precision,
    QualityName,
    Schedule,
    ScheduleName,
    Size,
)
from featviz.validation import MOST, fits_memory

#: Initial steps with redirected ReLU gradients, to reach dead units, as in lucid.
REDIRECT = 16
#: Default transforms for inputs other than images (H, W).
FLAT_TRANSFORMS = "jitter,noise"
#: Decay of the Fourier basis for them.
FLAT_DECAY = 1.0


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(Options):
    """How an image is optimized; verbs accept the fields as keywords, or all as ``settings=``.

    An image is a pure function of the model, the objective, these settings and its seed. Fields
    that are None get their values in :meth:`resolve`.
    """

    param: Param | str | None = option(
        None,
        "Parameterization: fourier, pixel, laplacian, maco, cppn, alpha or gan:NAME, with settings "
        "as in fourier:decay=1.2. Default: that of the quality preset, fourier.",
        cli=str,
    )
    transforms: Sequence[Transform] | str | None = option(
        None,
        "Transforms that the image has to be robust to: standard, lucid, none, or a list such as "
        "jitter:8,rotate:5,noise:0.1. Default: those of the quality preset.",
        cli=str,
    )
    quality: QualityName = option(
        "standard",
        "Preset for the settings that are not given: fast, standard, best, or lucid for the look "
        "of lucid's published images.",
        cli=str,
        recorded=False,
    )
    steps: int | None = option(
        None, "Number of updates. Default: 256 for standard quality.", cli=int, bounds=(1, MOST)
    )
    size: Size | None = option(
        None, "Image size: side in pixels, or HxW. Default: the model's own.", cli="size"
    )
    optimizer: OptimizerFactory | None = option(
        None,
        "A torch.optim class, or a function from a list of tensors to an optimizer. Default: Adam.",
    )
    lr: float | None = option(
        None,
        "Learning rate of the optimizer. Default: that of the quality preset for up to 256 steps, "
        "in inverse proportion to the steps for more.",
        cli=float,
        bounds=(0, 1e6),
        above=True,
    )
    schedule: Schedule | ScheduleName | None = option(
        None,
        "Decay of the learning rate: constant, cosine, or in Python a function from the progress, "
        "0 to 1, to a factor. Default: that of the quality preset, cosine; constant for a custom "
        "optimizer.",
        cli=str,
    )
    redirect: int = option(
        REDIRECT,
        "Initial steps in which dead ReLUs pass gradients that would activate them. 0: none.",
        cli=int,
        bounds=(0, MOST),
    )
    precision: Precision = option(
        "fp32", "Precision of the network's activations: fp32, bf16 or fp16.", cli=str
    )
    compile: bool = option(
        False,
        "Compile the traced network with torch.compile; worthwhile on a GPU and for many images.",
        recorded=False,
    )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Settings:
        """Return the settings described by a file's ``record``.

        Raises
        ------
        FeatvizError
            If a setting has no text form, or the wrong type.
        """
        record = upgraded(record)
        if record.get("optimizer") != "adam" or record.get("schedule") not in tuple(SCHEDULES):
            raise FeatvizError(
                "it was made with a custom optimizer or schedule: repeat it in Python"
            )
        values = {}
        for field in dataclasses.fields(cls):
            if not field.metadata["recorded"] or field.metadata["cli"] is None:
                continue
            value = record.get(field.name)
            if value is None:
                raise FeatvizError(f"its {field.name} has no text form: repeat it in Python")
            values[field.name] = _read(field, value)
        return cls(**values)

    def resolve(self, model: Model) -> Plan:
        """Resolve all defaults for a model, and check the values.

        Raises
        ------
        FeatvizError
            For invalid or inconsistent values.
        """
        preset = find_quality(self.quality)
        steps = preset.steps if self.steps is None else operator.index(self.steps)
        param = self._sized_param(model)
        if self.transforms is not None:
            transforms = check_transforms(adapted(self.transforms))
        elif len(param.shape) == 2:
            transforms = applicable(check_transforms(preset.transforms), model, param.shape)
        else:
            transforms = check_transforms(FLAT_TRANSFORMS)
        _check_memory(model, param, transforms)
        lr, schedule = self.lr, self.schedule
        if lr is None and self.optimizer is None:
            lr = default_rate(steps, preset.rate) * param.rate
        if schedule is None:
            schedule = preset.schedule if self.optimizer is None else "constant"
        devices.half(self.precision)
        return Plan(
            settings=dataclasses.replace(
                self,
                param=param,
                transforms=transforms,
                steps=steps,
                size=None,
                lr=lr,
                schedule=schedule,
            ),
            param=param,
            transforms=transforms,
            steps=steps,
            optimizer=_optimizer(self.optimizer, lr),
            schedule=find_schedule(schedule),
            redirect=self.redirect,
            precision=self.precision,
            compile=self.compile,
            record={
                "steps": steps,
                "size": list(param.shape),
                "param": param_text(param),
                "transforms": transforms_text(transforms),
                "optimizer": "adam" if self.optimizer is None else _name(self.optimizer, None),
                "lr": lr,
                "schedule": schedule if isinstance(schedule, str) else _name(schedule),
                "redirect": self.redirect,
                "precision": self.precision,
            },
        )

    def _sized_param(self, model: Model) -> Param:
        if isinstance(self.param, type):
            raise FeatvizError(f"param takes an instance: fv.param.{self.param.__name__}()")
        if not isinstance(self.param, (Param, str, type(None))):
            raise FeatvizError(
                "param is one parameterization for all images, such as fourier or "
                f"fv.param.Fourier(), not {type(self.param).__name__}"
            )
        if self.param == "fft":
            raise FeatvizError("no parameterization 'fft': lucid's fft is called fourier")
        param = self.param
        if param is None and len(model.size) == 2:
            param = find_quality(self.quality).param
        if isinstance(param, str):
            param = parse_param(param)
        param = param or Fourier(decay=FLAT_DECAY)
        if self.size is not None:
            sized = dataclasses.replace(param, size=self.size)
            if param.size is not None and param.shape != sized.shape:
                raise FeatvizError(
                    f"size {self.size} does not fit a parameterization of {param.shape}"
                )
            param = sized
        param = param.sized(model.channels, model.size)
        _check_memory(model, param)
        return param


class SettingsKeywords(TypedDict, total=False):
    """The fields of :class:`Settings` as keywords, for type checkers; a test keeps them in sync."""

    param: Param | str | None
    transforms: Sequence[Transform] | str | None
    quality: QualityName
    steps: int | None
    size: Size | None
    optimizer: OptimizerFactory | None
    lr: float | None
    schedule: Schedule | ScheduleName | None
    redirect: int
    precision: Precision
    compile: bool


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
        objective.bind(Target(model, self.param.shape, batch, channels))


def _check_memory(model: Model, param: Param, transforms: Sequence[Transform] = ()) -> None:
    """Raise :class:`FeatvizError` if an image, or what a transform makes of it, is too large."""
    channels, size = param.channels or model.channels, param.shape
    fits_memory("an image", (channels, *size))
    for transform in transforms:
        size = transform.output_size(size)
        fits_memory("an image", (channels, *size))


def _optimizer(optimizer: OptimizerFactory | None, lr: float | None) -> OptimizerFactory:
    if optimizer is not None and not callable(optimizer):
        raise FeatvizError("optimizer must be a torch.optim class or a function of the parameters")
    if optimizer is None:
        assert lr is not None
        return adam(lr)
    if lr is None:
        return optimizer
    if not isinstance(optimizer, type):
        raise FeatvizError("lr needs a torch.optim class; an optimizer function sets its own")
    return functools.partial(optimizer, lr=lr)


def _name(function: Callable[..., Any], default: str | None = "") -> str | None:
    """Return the name of a function; if it has none, its repr, or ``default`` if that is given."""
    return getattr(function, "__name__", repr(function) if default == "" else default)


def _read(field: dataclasses.Field[Any], value: Any) -> Any:
    """Convert a recorded value back to the value of the setting.

    Raises
    ------
    FeatvizError
        If the value has the wrong type.
    """
    value_type = field.metadata["cli"]
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if value_type == "size" and isinstance(value, (list, tuple)) and 1 <= len(value) <= 3:
        if all(isinstance(side, int) and not isinstance(side, bool) for side in value):
            return tuple(value)
    elif value_type is float and (is_int or isinstance(value, float)) and math.isfinite(value):
        return float(value)
    elif (value_type is int and is_int) or (value_type is str and isinstance(value, str)):
        return value
    shown = " ".join(repr(value).split())[:60]
    raise FeatvizError(f"its {field.name} is damaged: {shown}")
