"""The settings of an attribution, as files keep them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from featviz._version import __version__
from featviz.attribution.methods import AttributionMethod
from featviz.attribution.result import PERCENTILE
from featviz.attribution.settings import AttributionSettings
from featviz.objectives import objective as as_objective


def record_of(
    model: str | None,
    config: AttributionSettings,
    method: AttributionMethod,
    options: dict[str, Any],
    size: tuple[int, ...],
    baseline: Any,
    notes: dict[str, Any],
) -> dict[str, Any]:
    """Return what was set and chosen, for JSON; tensors and functions are ``given``."""
    plain = {k: v for k, v in options.items() if k not in ("segments", "data", "infill")}
    return {
        "version": __version__,
        "verb": "attribute",
        "model": model,
        "method": config.method,
        "size": list(size),
        "baseline": _recorded(baseline),
        **plain,
        **({"infill": "given"} if config.infill is not None else {}),
        **({"data": _named(config.data)} if config.data is not None else {}),
        **({"through": str(as_objective(config.through))} if config.through else {}),
        **notes,
        "segments": options.get("segments") is not None,
        "over": method.reduction,
        "signed": method.signed,
        "percentile": PERCENTILE,
        "precision": config.precision,
    }


def _named(data: Any) -> str:
    """Return a dataset as JSON can hold it."""
    return str(data) if isinstance(data, (str, Path)) else "given"


def _recorded(baseline: Any) -> Any:
    """Return a baseline as JSON can hold it."""
    if isinstance(baseline, (list, tuple)):
        return [_recorded(item) for item in baseline]
    return "given" if isinstance(baseline, torch.Tensor) else baseline
