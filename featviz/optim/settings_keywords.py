"""The settings of an optimization as keywords, for type checkers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from featviz.param import Param
from featviz.transforms import Transform
from featviz.types import (
    OptimizerFactory,
    Precision,
    QualityName,
    Schedule,
    ScheduleName,
    Size,
)


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
    weight_decay: float | None
    prior: float | None
    coarse: float | None
    focus: float | None
    redirect: int
    precision: Precision
    compile: bool
