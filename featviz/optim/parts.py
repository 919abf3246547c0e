"""The samples of a batch that go through the network together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from featviz.objectives.base import Objective
from featviz.objectives.scene import Scene, Score, Target
from featviz.optim import prior as priors
from featviz.types import Tensor

#: Samples per forward pass on a CPU if that is bitwise identical to one by one: enough to keep the
#: cores busy, and few enough for their caches.
WIDE = 4


@dataclasses.dataclass(frozen=True)
class Part:
    """Samples of the batch that go through the network together, and their scores.

    Each is still scored by itself, since reducing over a batch would add in another order.
    """

    samples: slice
    needs: tuple[str, ...]
    scores: tuple[Score, ...]
    until: tuple[Score, ...] = ()
    prior: Score | None = None

    def __len__(self) -> int:
        return int(self.samples.stop - self.samples.start)

    def score(self, scene: Scene) -> Tensor:
        """Return the value of each sample, (B,)."""
        return _each(self.scores, scene)

    def check(self, scene: Scene) -> Tensor:
        """Return ``until`` (B,), which is above zero for samples that are done; -inf without it."""
        if not self.until:
            return scene.images.new_full((len(self),), -torch.inf)
        return _each(self.until, scene).detach()


def _each(scores: tuple[Score, ...], scene: Scene) -> Tensor:
    if len(scores) == 1:
        return scores[0](scene)
    return torch.cat([score(sample) for score, sample in zip(scores, scene.samples, strict=True)])


class Parts:
    """How a batch goes through the network: ``current`` are its parts.

    ``objectives`` are the objective and, if there is one, the stopping criterion; ``weights``
    the weights of the prior on activations for each sample of ``target``'s batch.
    """

    def __init__(
        self, objectives: Sequence[Objective], target: Target, weights: list[float]
    ) -> None:
        self.objectives, self.target, self.weights = objectives, target, weights
        self.current: list[Part] = []

    def split(self, micro: int) -> None:
        """Split the batch into parts of ``micro`` samples."""
        batch = self.target.batch
        starts = range(0, batch, micro)
        self.current = [self._part(start, min(start + micro, batch)) for start in starts]
        self._unmerged = self.current
        self._single = micro == 1

    def _target(self, count: int) -> Target:
        return dataclasses.replace(self.target, batch=count)

    def _part(self, start: int, stop: int) -> Part:
        rows = slice(start, stop)
        target = self._target(stop - start)
        objectives = [item.sliced(rows) for item in self.objectives]
        needs = sorted({name for item in objectives for name in item.needs(target)})
        score, *until = [item.bind(target) for item in objectives]
        return self._with_prior(Part(rows, tuple(needs), (score,), tuple(until)))

    def _with_prior(self, part: Part) -> Part:
        """Return a part with the prior of its samples, which needs more layers."""
        weights = self.weights[part.samples]
        if not any(weights):
            return part
        target = self._target(len(part))
        needs = sorted({*part.needs, *priors.prior(target).needs(target)})
        prior = priors.bind(weights, target)
        return dataclasses.replace(part, needs=tuple(needs), prior=prior)

    def active(self, active: Sequence[bool]) -> list[Part]:
        """Return the parts with active samples, splitting merged ones that are partly inactive."""
        parts: list[Part] = []
        for part in self.current:
            flags = active[part.samples]
            if self._single and not all(flags):
                singles = zip(self._unmerged[part.samples], flags, strict=True)
                parts += [single for single, is_active in singles if is_active]
            elif any(flags):
                parts.append(part)
        return parts

    def merged(self) -> list[Part]:
        """Merge neighbouring samples that need the same layers into parts of :data:`WIDE`."""
        parts: list[Part] = []
        start = 0
        while start < self.target.batch:
            group = self.current[start : start + WIDE]
            if len(group) == WIDE and len({part.needs for part in group}) == 1:
                scores = tuple(score for part in group for score in part.scores)
                until = tuple(check for part in group for check in part.until)
                rows = slice(start, start + WIDE)
                group = [self._with_prior(Part(rows, group[0].needs, scores, until))]
            parts += group
            start += sum(map(len, group))
        return parts
