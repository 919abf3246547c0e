"""What natural images say of rendered ones: strength, interpretability, the path they take."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import torch

from featviz.checks import path, strength
from featviz.checks.interpretability import interpretability_criterion
from featviz.checks.judges import Panel
from featviz.checks.sheet import SheetImage
from featviz.checks.verdicts import Criterion
from featviz.dataset_examples.api import examples
from featviz.dataset_examples.forced_choice import DRAWN, FEWEST, OTHERS, JudgeEmbeddings
from featviz.dataset_examples.result import Examples
from featviz.io.dataset import Dataset
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.types import LayerInfo, Precision, Tensor

#: Seed of the random images, the same for every check.
ONCE = 0


@dataclasses.dataclass(frozen=True)
class NaturalImages:
    """The images of a dataset that excite objectives most and least, and others."""

    model: Model
    goals: Sequence[Objective]
    found: Examples

    @classmethod
    def of(
        cls,
        model: Model,
        goals: Sequence[Objective],
        dataset: Dataset,
        k: int,
        *,
        precision: Precision,
        progress: bool | None,
    ) -> NaturalImages:
        """Go through a dataset once."""
        found = examples(
            model,
            dataset,
            list(goals),
            k=k,
            sample=max(DRAWN, (OTHERS + 1) * k),
            seed=ONCE,
            precision=precision,
            progress=progress,
        )
        return cls(model, goals, found)

    def strengths(self, scores: Tensor) -> list[Criterion]:
        """Compare the scores (objectives,) of rendered images with those of the dataset."""
        quantiles = self.found.statistics.quantiles([q / 1000 for q in range(1001)])
        best = self.found.top.values[:, 0].tolist()
        return [
            strength.strength_criterion(float(score), top, row, self.found.count)
            for score, top, row in zip(scores, best, quantiles, strict=True)
        ]

    def sheet_images(self, unit: int, side: str, label: str) -> tuple[SheetImage, ...]:
        """Return the highest or lowest images with their values and names."""
        ranked = self.found.ranked(side)
        images = []
        for rank, image in enumerate(self.found.images(unit, side)):
            value = float(ranked.values[unit, rank])
            name = self.found.sources[int(ranked.indices[unit, rank])]
            text = f"{value:.4g}, {name.rpartition('/')[2]}"
            images.append(SheetImage(image, text if rank else f"{label} {text}", value, name))
        return tuple(images)

    def interpretability(
        self, pictures: Tensor, negatives: Tensor, panel: Panel
    ) -> list[Criterion]:
        """Let judges tell the highest images from the lowest, by (objectives, P, C, H, W)."""
        read = self.found.cache.__getitem__
        judges = {name: JudgeEmbeddings(judge, read) for name, judge in panel.judges.items()}
        criteria = []
        for unit, (shown, negative) in enumerate(zip(pictures, negatives, strict=True)):
            top, bottom = (self._indices(unit, side) for side in ("top", "bottom"))
            others = [j for j in self.found.drawn if j not in top]
            margins = {}
            if top and others:
                margins = {
                    name: judge.told_apart(shown, negative, top, bottom, others)
                    for name, judge in judges.items()
                }
            criteria.append(interpretability_criterion(margins, len(top), len(others), panel.why))
        return criteria

    def paths(self, images: Tensor) -> list[Criterion]:
        """Compare the paths of images (objectives, C, H, W) and natural ones in the network."""
        layers_by_goal, infos, rows, reference = self._reference
        own = path.profiles(self.model, images, infos)
        criteria = []
        for i in range(len(self.goals)):
            indices = self._indices(i, "top")
            top = [rows[j] for j in indices]
            others = [rows[j] for j in self.found.drawn if j not in indices]
            enough = min(len(top), len(others)) >= FEWEST
            similarities = [
                path.layer_similarity(n, own[n][i], reference[n][top], reference[n][others])
                for n in ([info.name for info in layers_by_goal[i]] if enough else [])
                if n in own and n in reference
            ]
            criteria.append(path.path_criterion(similarities, len(top), len(others)))
        return criteria

    @functools.cached_property
    def _reference(
        self,
    ) -> tuple[list[list[LayerInfo]], list[LayerInfo], dict[int, int], dict[str, Tensor]]:
        """The layers of each path and of all, the rows of the natural images, their profiles."""
        layers_by_goal = [path.layers(self.model, goal) for goal in self.goals]
        infos = list({info.name: info for layers in layers_by_goal for info in layers}.values())
        tops = [self._indices(unit, "top") for unit in range(len(self.goals))]
        order = sorted({j for row in tops for j in row} | set(self.found.drawn))
        rows = {index: row for row, index in enumerate(order)}
        return layers_by_goal, infos, rows, path.profiles(self.model, self._images(order), infos)

    def _indices(self, unit: int, side: str) -> list[int]:
        return [j for j in self.found.ranked(side).indices[unit].tolist() if j >= 0]

    def _images(self, indices: Sequence[int]) -> Tensor:
        return torch.stack([self.found.cache[j] for j in indices])
