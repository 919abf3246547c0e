"""Many objectives of the same images, in one forward pass and with few operations."""

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
    """The values of ``objectives``, (B, units), for images (B, C, *size) of the model's own size.

    Those of the same kind, layer and reduction (``Objective.kin``) are computed together; all
    layers come from one forward pass, which ends at the deepest of them. From ``expected`` images
    of :data:`featviz.optim.tracing.PAYS` on, batches of ``batch_size`` run traced.

    Raises
    ------
    FeatvizError
        If there is no objective, one does not fit the network, or one depends on the batch.
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
        for goal in objectives:
            if goal.relational or goal.sliced(slice(0, 1)) != goal:
                raise FeatvizError(f"{goal} is about a batch: examples are of single images")
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
        for index, goal in enumerate(self.objectives):
            groups.setdefault(index if goal.kin is None else goal.kin, []).append(index)
        self._groups = list(groups.values())
        target = self.target(1)
        self.needs = tuple(sorted({name for o in objectives for name in o.needs(target)}))
        self._bind(1)

    def target(self, batch: int) -> Target:
        """Return what the objectives are bound to."""
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
        """Return what the network made of images on its device, and the values on the CPU."""
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
    """Return what computes members of the same kin, (B, members)."""
    first = members[0]
    if len(members) > 1:
        return type(first).columns(members, target)
    score = first.bind(target)
    return lambda scene: score(scene)[:, None]
