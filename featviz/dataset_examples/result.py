"""The result of ``fv.examples``: which images of a dataset activate units most, and where."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from featviz.dataset_examples.cache import ExampleCache
from featviz.dataset_examples.correlation import Correlation
from featviz.dataset_examples.statistics import RunningStatistics
from featviz.errors import FeatvizError
from featviz.io import images as _images
from featviz.io import sheets
from featviz.objectives.base import Objective
from featviz.optim.base_result import BaseResult, finite
from featviz.types import Tensor

#: The most objectives on one sheet; the quantiles in a record.
MOST, QUANTILES = 32, (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_BOX_COLOUR = (1.0, 0.2, 0.1)


@dataclasses.dataclass(frozen=True)
class Ranked:
    """The images with the highest or the lowest values of each objective, most extreme first.

    Attributes
    ----------
    values
        (units, k); NaN if fewer than ``k`` images have a value.
    indices
        (units, k): the index of the image in the dataset; -1 if there are fewer.
    positions
        (units, k, axes): where in the layer's map the unit responds most (for the lowest values,
        least), (y, x); -1 if there is no single position: several units, classes, a class token.
    boxes
        (units, k, 2 x axes): the receptive field of that position in pixels, (y0, x0, y1, x1) with
        y1 and x1 excluded; the whole image if there is no position.
    """

    values: Tensor
    indices: Tensor
    positions: Tensor
    boxes: Tensor


@dataclasses.dataclass(repr=False)
class Examples(BaseResult):
    """The images with the highest and the lowest values, and the distribution of the values.

    Attributes
    ----------
    objectives
        The text of each objective; a unit below is its index in this list, or the text.
    top, bottom
        The images with the highest and with the lowest values.
    statistics
        Count, mean, standard deviation, extremes and quantiles of all values, each (units,).
    count
        How many images were read.
    skipped
        Why an image could not be read, by its name.
    interrupted
        Whether Ctrl-C ended the run early.
    settings
        The settings of the run.
    drawn
        The indices of the random images of ``sample``; ``cache[index]`` is the image.
    """

    objectives: list[str]
    top: Ranked
    bottom: Ranked
    statistics: RunningStatistics
    count: int
    cache: ExampleCache
    correlations: dict[str, tuple[list[int], Correlation]] = dataclasses.field(default_factory=dict)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    interrupted: bool = False
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    drawn: list[int] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.objectives)

    @property
    def sources(self) -> dict[int, str]:
        """The names of the images by index: the path below the folder, or the index."""
        return self.cache.names

    def unit(self, unit: int | str | Objective) -> int:
        """Return the index of an objective; raise :class:`FeatvizError` if it is not one of them.

        ``unit`` is an index, which may count from the end, the objective, or its text.
        """
        if hasattr(unit, "__index__"):
            number = operator.index(unit)
            if not -len(self) <= number < len(self):
                raise FeatvizError(f"no unit {number}: there are {len(self)}")
            return number % len(self)
        if str(unit) not in self.objectives:
            raise FeatvizError(f"no examples of {unit}: the result has {self.objectives[0]}, …")
        return self.objectives.index(str(unit))

    def ranked(self, side: str) -> Ranked:
        """Return ``top`` or ``bottom`` by name."""
        if side not in ("top", "bottom"):
            raise FeatvizError(f"no side {side!r}: use top or bottom")
        return self.top if side == "top" else self.bottom

    def _indices(self, unit: int | str | Objective, side: str) -> list[int]:
        row: list[int] = self.ranked(side).indices[self.unit(unit)].tolist()
        return [index for index in row if index >= 0]

    def images(self, unit: int | str | Objective, side: str = "top") -> Tensor:
        """Return the images of a unit, best first, as floats (k or fewer, C, *size) in [0, 1]."""
        images = [self.cache[index] for index in self._indices(unit, side)]
        return torch.stack(images) if images else torch.zeros(0)

    def crops(self, unit: int | str | Objective, side: str = "top") -> list[Tensor]:
        """Return the part of each image that the unit responds to, as floats (C, h, w)."""
        boxes = self.ranked(side).boxes[self.unit(unit)].tolist()
        return [_crop(i, b) for i, b in zip(self.images(unit, side), boxes, strict=False)]

    def correlation(self, layer: str) -> Tensor:
        """Return Pearson's correlations over the images between the units of a layer (n, n).

        They are in the order of ``objectives``; NaN for constant units.

        Raises
        ------
        FeatvizError
            If they were not requested with ``correlate=True``, or no objective is of this layer.
        """
        if layer not in self.correlations:
            known = ", ".join(self.correlations) or "none: ask with correlate=True"
            raise FeatvizError(f"no correlations of layer {layer!r}; known: {known}")
        return self.correlations[layer][1].matrix()

    @property
    def record(self) -> dict[str, Any]:
        """The settings, the examples and the distribution of the values, for JSON."""
        return self._record(range(len(self)))

    def _record(self, units: Sequence[int]) -> dict[str, Any]:
        stats = self.statistics
        columns = {"mean": stats.mean, "std": stats.std, "min": stats.min, "max": stats.max}
        columns |= {f"q{q:g}": stats.quantile(q) for q in QUANTILES}
        return {
            **self.settings,
            "objective": [self.objectives[u] for u in units],
            "count": self.count,
            "skipped": self.skipped,
            "spread": {name: finite(t[list(units)].tolist()) for name, t in columns.items()},
            "top": [self._entries(u, "top") for u in units],
            "bottom": [self._entries(u, "bottom") for u in units],
        }

    def _entries(self, unit: int, side: str) -> list[dict[str, Any]]:
        ranked = self.ranked(side)
        rows = (ranked.values, ranked.positions, ranked.boxes)
        entries = []
        for index, value, position, box in zip(
            self._indices(unit, side), *(row[unit].tolist() for row in rows), strict=False
        ):
            coordinates = None if -1 in position else position
            entry = {"value": finite([value])[0], "index": index, "image": self.sources[index]}
            entries.append({**entry, "position": coordinates, "box": box})
        return entries

    def sheet(
        self,
        units: Sequence[int | str | Objective] | None = None,
        *,
        columns: int | None = None,
    ) -> Image.Image:
        """Draw a row of the highest and one of the lowest examples of each unit, with their boxes.

        Raises
        ------
        FeatvizError
            If images are neither gray nor RGB, none has a value, or there are more than 32 units.
        """
        indices = [self.unit(u) for u in (range(len(self)) if units is None else units)]
        if len(indices) > MOST:
            raise FeatvizError(f"a sheet has at most {MOST} objectives, not {len(indices)}")
        rows = [(u, side) for u in indices for side in ("top", "bottom")]
        longest = max((len(self._indices(u, s)) for u, s in rows), default=0)
        if not longest:
            raise FeatvizError("there are no examples to draw: no image has a value")
        cells: list[Tensor] = []
        labels: list[str] = []
        for unit, side in rows:
            ranked, images = self.ranked(side), self.images(unit, side)
            for rank, image in enumerate(images):
                cells.append(_outline(image, ranked.boxes[unit, rank].tolist()))
                name = self.sources[int(ranked.indices[unit, rank])]
                extreme = "highest" if side == "top" else "lowest"
                title = f"{self.objectives[unit]} {extreme}: " if rank == 0 else ""
                labels.append(f"{title}{float(ranked.values[unit, rank]):.4g} {name}")
            for _ in range(longest - len(images)):
                cells.append(torch.ones_like(cells[0]))
                labels.append("")
        return sheets.sheet(torch.stack(cells), labels, columns=columns or longest)

    def save(
        self, path: str | Path, *, units: Sequence[int | str | Objective] | None = None
    ) -> list[Path]:
        """Write the sheet of all or some units; a PNG carries its record.

        Raises
        ------
        FeatvizError
            As :meth:`sheet`, or if the file cannot be written.
        """
        page = self.sheet(units)
        indices = [self.unit(u) for u in (range(len(self)) if units is None else units)]
        return [_images.save(page, path, self._record(indices))]

    def _repr_png_(self) -> bytes:
        return _images.png_bytes(self.sheet(range(min(len(self), MOST))))


def _crop(image: Tensor, box: list[int]) -> Tensor:
    axes = len(box) // 2
    return image[(slice(None), *(slice(box[a], box[axes + a]) for a in range(axes)))].clone()


def _outline(image: Tensor, box: list[int]) -> Tensor:
    """Return an image with the outline of a box, unless that is the whole image."""
    if image.ndim != 3 or box == [0, 0, *image.shape[1:]]:
        return image
    outlined = image.clone()
    colour = torch.tensor(_BOX_COLOUR[: len(image)]).view(-1, 1, 1)
    thickness = max(1, min(image.shape[1:]) // 112)
    top, left, bottom, right = box
    for rows, cols in (
        (slice(top, top + thickness), slice(left, right)),
        (slice(max(bottom - thickness, 0), bottom), slice(left, right)),
        (slice(top, bottom), slice(left, left + thickness)),
        (slice(top, bottom), slice(max(right - thickness, 0), right)),
    ):
        outlined[:, rows, cols] = colour
    return outlined
