"""Evaluate many objectives for the same images with one forward pass and few operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.objectives.scene import Scene, Score, Target
from featviz.optim.batching import evaluated_together
from featviz.optim.forward import ForwardPass
from featviz.optim.tracing import PAYS
from featviz.types import Precision, Tensor


class ScoreTable:
    """Computes the values (B, units) of objectives for images (B, C, *size) of the model's size.

    Objectives of the same kind, layer and reduction (``Objective.kin``) are computed together; all
    layers come from one forward pass, which ends at the deepest one. If at least
    :data:`featviz.optim.tracing.PAYS` images are ``expected``, full batches run traced.

    Raises
    ------
    FeatvizError
        If there is no objective, or one does not fit the network or depends on the whole batch.
    """

    def __init__(
        self,
        model: Model,
        objectives: Sequence[Objective],
        *,
        precision: Precision = "fp32",
        batch_size: int | None = None,
        expected: int = 1,
    ) -> None:
        if not objectives:
            raise FeatvizError("give at least one objective")
        for objective in objectives:
            if objective.relational or objective.sliced(slice(0, 1)) != objective:
                raise FeatvizError(
                    f"{objective} depends on the whole batch: dataset examples need objectives of "
                    "single images"
                )
        self.model, self.objectives = model, list(objectives)
        self.forward = ForwardPass(
            model,
            model.size,
            precision=precision,
            traced=expected >= PAYS,
            traced_batch=evaluated_together(model.device, batch_size),
        )
        self._bound: dict[int, list[tuple[Tensor, Score]]] = {}
        groups: dict[object, list[int]] = {}
        for index, objective in enumerate(self.objectives):
            groups.setdefault(index if objective.kin is None else objective.kin, []).append(index)
        self._groups = list(groups.values())
        target = self.target(1)
        self.needs = tuple(sorted({name for o in objectives for name in o.needs(target)}))
        self._bind(1)

    def target(self, batch: int) -> Target:
        """Return the target that the objectives are bound to."""
        return Target(self.model, self.model.size, batch)

    def _bind(self, batch: int) -> list[tuple[Tensor, Score]]:
        if batch not in self._bound:
            target = self.target(batch)
            self._bound[batch] = [
                (torch.tensor(group), _columns([self.objectives[i] for i in group], target))
                for group in self._groups
            ]
        return self._bound[batch]

    def __call__(self, images: Tensor) -> tuple[Scene, Tensor]:
        """Return the scene of images on its device, and the values (B, units) on the CPU."""
        bound = self._bind(len(images))
        scene = self.forward.scene(images, self.needs)
        with torch.autocast(images.device.type, enabled=False):
            values = [(group, score(scene).detach().cpu()) for group, score in bound]
        dtype = max((v.dtype for _, v in values), key=lambda d: torch.finfo(d).bits)
        table = torch.empty(len(images), len(self.objectives), dtype=dtype)
        for group, columns in values:
            table[:, group] = columns.to(dtype)
        return scene, table


def _columns(members: list[Objective], target: Target) -> Score:
    """Return the function that computes the values (B, members) of objectives of the same kin."""
    first = members[0]
    if len(members) > 1:
        return type(first).columns(members, target)
    score = first.bind(target)
    return lambda scene: score(scene)[:, None]
