"""Explain images one by one, so that none depends on the others."""

from __future__ import annotations

from typing import Any

import torch

from featviz.attribution.case import Case
from featviz.attribution.methods import AttributionMethod
from featviz.bars import tqdm
from featviz.optim.evaluator import Evaluator
from featviz.types import Tensor


def scores_of(evaluators: list[Evaluator], images: Tensor) -> Tensor:
    """Return each image's score (B,), one at a time so that none depends on the others."""
    pairs = zip(evaluators, images.split(1), strict=True)
    return torch.cat([evaluator.scores(image) for evaluator, image in pairs])


def cases_of(
    evaluators: list[Evaluator],
    images: Tensor,
    baselines: Tensor | None,
    seeds: list[int],
    options: dict[str, Any],
) -> list[Case]:
    device = evaluators[0].model.device
    shared: dict[Any, Any] = {}
    return [
        Case(
            evaluator,
            images[i : i + 1].to(device),
            None if baselines is None else baselines[i].to(device),
            seeds[i],
            options,
            shared=shared,
        )
        for i, evaluator in enumerate(evaluators)
    ]


def explained(
    method: AttributionMethod, cases: list[Case], progress: bool | None
) -> tuple[Tensor, bool]:
    """Explain the images one by one; return what is finished, and whether Ctrl-C came."""
    assert method.explain is not None
    attributions: list[Tensor] = []
    try:
        for case in tqdm(cases, unit="image", leave=False, progress=progress):
            attributions.append(method.explain(case).detach().float().cpu())
            if not (attributions[-1].any() or case.warned or case.options.get("through")):
                case.warn(
                    f"no pixel matters for {case.evaluator.objective} by this method: the map is "
                    "zero; use another, or an objective whose units are active on the image"
                )
    except KeyboardInterrupt:
        if not attributions:
            raise
        return torch.cat(attributions), True
    return torch.cat(attributions), False


def notes_of(cases: list[Case]) -> dict[str, Any]:
    """Return what the method chose by itself: one value for all images, or a list."""
    notes = {}
    for key in dict.fromkeys(key for case in cases for key in case.notes):
        values = [case.notes.get(key) for case in cases]
        notes[key] = values[0] if len(set(values)) == 1 else values
    return notes
