"""The settings of an optimization, for Python, the command line and files.

To add a setting, add a field to :class:`Settings` and its type to ``SettingsKeywords``, and use it
in :meth:`Settings.resolve` and wherever it takes effect. Signatures, docstrings, command-line
options, records in files and the viewer's code panel are generated from the field.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from featviz.errors import FeatvizError
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.optim import focus, stages
from featviz.optim import prior as priors
from featviz.optim.network_noise import applicable
from featviz.optim.optimizers import SCHEDULES, default_optimizer, find_schedule
from featviz.optim.pace import resolve_pace
from featviz.optim.quality import find_quality
from featviz.optim.resolved import Plan, check_memory, record_of
from featviz.optim.sized_param import sized_param
from featviz.optim.upgrade import recorded_value, upgraded
from featviz.options import Options, documented, option
from featviz.param import Fourier, Param
from featviz.param import parse as parse_param
from featviz.transforms import Transform, output_size
from featviz.transforms.presets import check as check_transforms
from featviz.types import (
    OptimizerFactory,
    Precision,
    QualityName,
    Schedule,
    ScheduleName,
    Size,
)
from featviz.validation import MOST

#: Initial steps with redirected ReLU gradients, to reach dead units, as in lucid.
REDIRECT = 16
#: Default transforms for inputs other than images (H, W).
FLAT_TRANSFORMS = "jitter,noise"


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
        "A torch.optim class, or a function from a list of tensors to an optimizer. Default: Adam; "
        "normalized gradient steps for signals (L,).",
    )
    lr: float | None = option(
        None,
        "Learning rate of the optimizer. Default: that of the quality preset for up to 256 steps, "
        "in inverse proportion to the steps for more, lower without weight decay; 0.2 for signals.",
        cli=float,
        bounds=(0, 1e6),
        above=True,
    )
    schedule: Schedule | ScheduleName | None = option(
        None,
        "Decay of the learning rate: constant, cosine, flat_cosine (constant for half of the "
        "steps), or in Python a function from the progress, 0 to 1, to a factor. Default: that of "
        "the quality preset; constant for a custom optimizer.",
        cli=str,
    )
    weight_decay: float | None = option(
        None,
        "Fraction of every parameter that is lost in a step, divided by lr: what no gradient "
        "sustains vanishes. 0: none, and another default for lr and schedule. Default: that of the "
        "preset for images that begin at noise, by fourier or laplacian; 0.1 / lr for signals "
        "(L,); else none.",
        cli=float,
        bounds=(0, 1e300),  # 0.1 / lr has to fit
    )
    prior: float | None = option(
        None,
        "Weight of the prior for each class logit in the objective: the match with the network's "
        "batch-norm statistics, less roughness. 0: none. Default: that of the quality preset, and "
        "none for a network without batch norm.",
        cli=float,
        bounds=(0, 1e6),
    )
    coarse: float | None = option(
        None,
        "Share of the steps, the first ones, in which the network sees the image at half its size, "
        "for objectives without positions: shapes before what is on them. 0: none. Default: that "
        "of the quality preset, where the network takes half the size.",
        cli=float,
        bounds=(0, 1),
    )
    focus: float | None = option(
        None,
        "For class logits: gradients are multiplied by their local strength to this power, so that "
        "detail gathers on the object and its surroundings stay calm. 0: none. Default: that of "
        "the preset for images that begin at noise and have weight decay.",
        cli=float,
        bounds=(0, 4),
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
        optimizer = record.get("optimizer")
        known = optimizer in ("adam", "normalized")
        if not known or record.get("schedule") not in tuple(SCHEDULES):
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
            values[field.name] = recorded_value(field, value)
        size = values["size"]
        fourier = len(size) == 1 and isinstance(parse_param(values["param"]), Fourier)
        if default_optimizer(fourier, size) != optimizer:
            raise FeatvizError(
                f"it was made with the optimizer {optimizer!r}, which is not the default for its "
                "size and parameterization: repeat it in Python"
            )
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
        param = sized_param(self.param, self.size, preset.param, model)
        if self.transforms is not None:
            transforms = check_transforms(self.transforms)
        elif len(param.shape) == 2:
            transforms = applicable(check_transforms(preset.transforms), model, param.shape)
        else:
            transforms = check_transforms(FLAT_TRANSFORMS)
        check_memory(model, param, transforms)
        prior = self.prior if self.prior is not None or len(param.shape) == 2 else 0.0
        prior = priors.applicable(prior, preset.prior, model, output_size(transforms, param.shape))
        coarse = stages.applicable(self.coarse, preset.coarse, model, param, transforms)
        paced = resolve_pace(
            preset,
            param,
            steps,
            optimizer=self.optimizer,
            lr=self.lr,
            schedule=self.schedule,
            weight_decay=self.weight_decay,
        )
        focused = focus.applicable(self.focus, preset.focus if paced.weight_decay else 0.0, param)
        devices.half(self.precision)
        settings = dataclasses.replace(
            self,
            param=param,
            transforms=transforms,
            steps=steps,
            size=None,
            lr=paced.lr,
            schedule=paced.schedule,
            weight_decay=paced.weight_decay,
            prior=prior,
            coarse=coarse,
            focus=focused,
        )
        return Plan(
            settings=settings,
            param=param,
            transforms=transforms,
            steps=steps,
            optimizer=paced.optimizer,
            schedule=find_schedule(paced.schedule),
            prior=prior,
            coarse=coarse,
            focus=focused,
            redirect=self.redirect,
            precision=self.precision,
            compile=self.compile,
            record=record_of(settings, param, transforms, paced.usual),
        )
