"""Everything collected from a stream of images; memory grows with units and k, not with images."""

from __future__ import annotations

from typing import Any

import torch

from featviz.dataset_examples.cache import ExampleCache
from featviz.dataset_examples.correlation import Correlation
from featviz.dataset_examples.positions import UnitPositions
from featviz.dataset_examples.ranking import Extremes
from featviz.dataset_examples.receptive_field import ReceptiveField, measure
from featviz.dataset_examples.relevance_table import DEFAULT_RULE, RelevanceTable
from featviz.dataset_examples.result import Examples, Ranked
from featviz.dataset_examples.settings import ExamplesSettings
from featviz.dataset_examples.statistics import RunningStatistics
from featviz.io.dataset import DatasetItem, ImageDataset
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives import objective as as_objective
from featviz.objectives.scene import IMAGE
from featviz.optim.score_table import ScoreTable
from featviz.types import Tensor


class Tally:
    """Ranks, statistics, correlations and cached images of a stream."""

    def __init__(
        self,
        model: Model,
        objectives: list[Objective],
        dataset: ImageDataset,
        settings: ExamplesSettings,
        random: torch.Generator,
        batch_size: int,
    ) -> None:
        self.model, self.settings, self._random = model, settings, random
        self.table = _table(model, objectives, settings, batch_size, dataset.count or 1)
        self.positions = UnitPositions(objectives, self.table.target(1))
        self.top = Extremes(len(objectives), settings.k)
        self.bottom = Extremes(len(objectives), settings.k, largest=False)
        # A random sample: the images with the largest random numbers.
        self.drawn = Extremes(1, settings.sample)
        self.statistics = RunningStatistics(len(objectives))
        self.cache = ExampleCache(dataset, model.channels, model.size, keep=settings.keep)
        self.skipped: dict[str, str] = {}
        self.count = 0
        self._last: dict[int, tuple[DatasetItem, Tensor]] = {}
        self.correlations: dict[str, tuple[list[int], Correlation]] = {}
        if settings.correlate:
            layers: dict[str, list[int]] = {}
            for unit, goal in enumerate(objectives):
                if len(goal.layers) == 1:
                    layers.setdefault(goal.layers[0], []).append(unit)
            self.correlations = {n: (u, Correlation(len(u))) for n, u in layers.items()}

    def update(self, batch: dict[int, tuple[DatasetItem, Tensor]]) -> tuple[Tensor, Tensor]:
        """Add the next images, by index; return them and their values (B, units)."""
        images = torch.stack([image for _, image in batch.values()])
        scene, values = self.table(images.to(self.model.device))
        self._last = batch  # an interrupt may come between the next lines
        self.count += len(batch)
        indices = torch.tensor(list(batch))
        changes = 0
        for extremes in (self.top, self.bottom):
            units, ranks, samples = extremes.update(values, indices)
            extremes.places[units, ranks] = self.positions.find(
                scene, units, samples, extremes.largest
            )
            changes += len(units)
        if self.drawn.k:
            random_numbers = torch.rand(len(batch), 1, generator=self._random)
            changes += len(self.drawn.update(random_numbers, indices)[0])
        self.statistics.update(values)
        for members, correlation in self.correlations.values():
            correlation.update(values[:, members])
        if changes:
            self._settle()
        return images, values

    def _settle(self) -> None:
        rankings = (self.top, self.bottom, self.drawn)
        needed = torch.cat([extremes.indices.flatten() for extremes in rankings]).unique()
        self.cache.settle({i for i in needed.tolist() if i >= 0}, self._last)

    def result(self, record: dict[str, Any], interrupted: bool) -> Examples:
        """Return the result so far."""
        self._settle()
        fraction = self.settings.fraction
        layers = sorted({name for name in self.positions.layers if name is not None})
        fields = {n: measure(self.model, "input" if n == IMAGE else n, fraction) for n in layers}
        return Examples(
            objectives=[str(o) for o in self.table.objectives],
            top=self._ranked(self.top, fields),
            bottom=self._ranked(self.bottom, fields),
            statistics=self.statistics,
            count=self.count,
            drawn=[i for i in self.drawn.indices.flatten().tolist() if i >= 0],
            cache=self.cache,
            correlations=self.correlations,
            skipped=self.skipped,
            interrupted=interrupted,
            settings=record,
        )

    def _ranked(self, extremes: Extremes, fields: dict[str, ReceptiveField]) -> Ranked:
        k, size = min(self.settings.k, self.count), self.model.size
        count = len(extremes.values)
        positions = torch.full((count, k, len(size)), -1)
        boxes = torch.tensor([0] * len(size) + list(size)).repeat(count, k, 1)
        for layer, field in fields.items():
            rows = [unit for unit, name in enumerate(self.positions.layers) if name == layer]
            positions[rows] = field.positions(extremes.places[rows, :k])
            boxes[rows] = field.boxes(positions[rows])
        return Ranked(extremes.values[:, :k], extremes.indices[:, :k], positions, boxes)


def _table(
    model: Model,
    objectives: list[Objective],
    settings: ExamplesSettings,
    batch_size: int,
    expected: int,
) -> ScoreTable | RelevanceTable:
    if settings.by == "relevance":
        goal = settings.relevant_for
        of = None if goal is None else as_objective(goal)
        return RelevanceTable(model, objectives, of, settings.rule or DEFAULT_RULE)
    return ScoreTable(
        model,
        objectives,
        precision=settings.precision,
        batch_size=batch_size,
        expected=expected,
    )
