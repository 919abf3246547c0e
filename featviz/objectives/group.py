"""Several objectives as one: their mean, or one for each sample of the batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import torch

from featviz.errors import FeatvizError
from featviz.objectives.base import Objective, lift, terms_of
from featviz.objectives.scene import Score, Target


@dataclasses.dataclass(frozen=True, repr=False)
class Mean(Objective):
    """The mean of objectives, per sample."""

    parts: tuple[Objective, ...]

    def bind(self, target: Target) -> Score:
        bound = [o.bind(target) for o in self.parts]
        return lambda scene: torch.stack([value(scene) for value in bound]).mean(0)

    def sliced(self, here: slice) -> Objective:
        return Mean(tuple(o.sliced(here) for o in self.parts))

    def __str__(self) -> str:
        return f"mean({', '.join(map(str, self.parts))})"


@dataclasses.dataclass(frozen=True, repr=False)
class PerSample(Objective):
    """A different objective for each sample of the batch, in order."""

    parts: tuple[Objective, ...]

    def bind(self, target: Target) -> Score:
        if len(self.parts) != target.batch:
            raise FeatvizError(
                f"per_sample has {len(self.parts)} objectives for {target.batch} image(s)"
            )
        return _stack(self.parts, target)

    def sliced(self, here: slice) -> Objective:
        members = self.parts[here]
        return members[0] if len(members) == 1 else PerSample(members)

    def __str__(self) -> str:
        return f"per_sample({', '.join(map(str, self.parts))})"


def mean(objectives: Objective | Iterable[Objective], *more: Objective) -> Objective:
    """Return the mean of objectives: ``mean([a, b])`` or ``mean(a, b)``.

    Raises
    ------
    FeatvizError
        If there are none.
    """
    first = [objectives] if isinstance(objectives, Objective) else objectives
    return Mean(_at_least_one("mean", [*first, *more]))


def per_sample(objectives: Iterable[Objective]) -> Objective:
    """Return the objective that scores sample i of a batch by ``objectives[i]``.

    Raises
    ------
    FeatvizError
        If there are none; when used, if their number is not the batch size.
    """
    members = _at_least_one("per_sample", objectives)
    for member in members:
        if isinstance(member, PerSample) or member.relational:
            raise FeatvizError(f"per_sample takes objectives of single samples, not {member}")
    return PerSample(members)


def texts_of(objective: Objective, batch: int) -> list[str]:
    """Return the objective text of each sample."""
    if isinstance(objective, PerSample):
        return [str(part) for part in objective.parts]
    return [str(objective)] * batch


def _at_least_one(name: str, objectives: Iterable[Objective]) -> tuple[Objective, ...]:
    members = tuple(lift(o) for o in objectives)
    if not members:
        raise FeatvizError(f"{name} needs at least one objective")
    return members


def _stack(members: Sequence[Objective], target: Target) -> Score:
    """Score sample i by ``members[i]``, in as few operations as the members allow."""
    single_target = dataclasses.replace(target, batch=1)
    for member in members:
        member.bind(single_target)  # so that an error names the member that causes it
    term_lists = [terms_of(m) for m in members]
    if len(members) > 1 and len({len(s) for s in term_lists}) == 1 and term_lists[0]:
        columns = []
        for column in zip(*term_lists, strict=True):
            coefficients = torch.tensor([c for c, _ in column], device=target.device)
            objectives = [o for _, o in column]
            if all(o == objectives[0] for o in objectives):
                score: Score | None = objectives[0].bind(target)
            else:
                same_class = all(type(o) is type(objectives[0]) for o in objectives)
                score = type(objectives[0]).stack(objectives, target) if same_class else None
            if score is None:
                break
            columns.append((coefficients, score))
        else:
            return lambda scene: sum(
                (c * s(scene) for c, s in columns[1:]), columns[0][0] * columns[0][1](scene)
            )
    bound = [member.bind(single_target) for member in members]
    return lambda scene: torch.cat(
        [score(sample) for score, sample in zip(bound, scene.samples, strict=True)]
    )
