"""What ``fv.examples`` returns: which images of a dataset move units most, and where."""

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

#: Objectives that fit on one sheet; the quantiles that a record has.
MOST, QUANTILES = 32, (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_OUTLINE = (1.0, 0.2, 0.1)


@dataclasses.dataclass(frozen=True)
class Ranked:
    """The images at one end of the values of each objective, the outermost first.

    Attributes
    ----------
    values
        (units, k); NaN where there are fewer than ``k`` images with a value.
    indices
        (units, k): which image of the dataset; -1 where there are fewer.
    positions
        (units, k, axes): where in the layer's map the unit responds most (at the lower end,
        least), (y, x); -1 where there is no such place: several units, classes, a class token.
    boxes
        (units, k, 2 x axes): the pixels that it looks at from there, (y0, x0, y1, x1) with the
        ends excluded; the whole image where there is no place.
    """

    values: Tensor
    indices: Tensor
    positions: Tensor
    boxes: Tensor


@dataclasses.dataclass
class Examples(BaseResult):
    """The images with the highest and the lowest values, and how the values are spread.

    Attributes
    ----------
    objectives
        The text of each objective; a unit below is its index in this list, or the text.
    top, bottom
        The images with the highest and with the lowest values.
    statistics
        Count, mean, deviation, extremes and quantiles of all the values, each (units,).
    count
        How many images were seen.
    skipped
        Why an image could not be read, by its name.
    interrupted
        Whether Ctrl-C ended the run early.
    settings
        What was asked for.
    drawn
        The indices of the images that were drawn at random with ``sample``; ``album[index]``.
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
        """What the images are called, by index: the path below the folder, or the index."""
        return self.cache.names

    def unit(self, unit: int | str | Objective) -> int:
        """Return the index of an objective; raise :class:`FeatvizError` if it is not one of them.

        It may be given by index, from the end too, as text, or as an objective.
        """
        if hasattr(unit, "__index__"):
            number = operator.index(unit)
            if not -len(self) <= number < len(self):
                raise FeatvizError(f"no unit {number}: there are {len(self)}")
            return number % len(self)
        if str(unit) not in self.objectives:
            raise FeatvizError(f"no examples of {unit}: they are of {self.objectives[0]}, …")
        return self.objectives.index(str(unit))

    def ranked(self, side: str) -> Ranked:
        """Return ``top`` or ``bottom`` by name."""
        if side not in ("top", "bottom"):
            raise FeatvizError(f"no side {side!r}: it is top or bottom")
        return self.top if side == "top" else self.bottom

    def _indices(self, unit: int | str | Objective, side: str) -> list[int]:
        row: list[int] = self.ranked(side).indices[self.unit(unit)].tolist()
        return [index for index in row if index >= 0]

    def images(self, unit: int | str | Objective, side: str = "top") -> Tensor:
        """Return the images of a unit, best first, as floats (k or fewer, C, *size) in [0, 1]."""
        found = [self.cache[index] for index in self._indices(unit, side)]
        return torch.stack(found) if found else torch.zeros(0)

    def crops(self, unit: int | str | Objective, side: str = "top") -> list[Tensor]:
        """Return what the unit looks at in each of its images, as floats (C, h, w)."""
        boxes = self.ranked(side).boxes[self.unit(unit)].tolist()
        return [_crop(i, b) for i, b in zip(self.images(unit, side), boxes, strict=False)]

    def correlation(self, layer: str) -> Tensor:
        """Return Pearson's correlations over the images between the units of a layer (n, n).

        They are in the order of ``objectives``. NaN for units that never change.

        Raises
        ------
        FeatvizError
            If they were not asked for with ``correlate=True``, or no objective is of this layer.
        """
        if layer not in self.correlations:
            known = ", ".join(self.correlations) or "none: ask with correlate=True"
            raise FeatvizError(f"no correlations of layer {layer!r}; known: {known}")
        return self.correlations[layer][1].matrix()

    @property
    def record(self) -> dict[str, Any]:
        """The settings, the examples and the spread, for JSON."""
        return self._record(range(len(self)))

    def _record(self, units: Sequence[int]) -> dict[str, Any]:
        spread = self.statistics
        named = {"mean": spread.mean, "std": spread.std, "min": spread.min, "max": spread.max}
        named |= {f"q{q:g}": spread.quantile(q) for q in QUANTILES}
        return {
            **self.settings,
            "objective": [self.objectives[u] for u in units],
            "count": self.count,
            "skipped": self.skipped,
            "spread": {name: finite(t[list(units)].tolist()) for name, t in named.items()},
            "top": [self._entries(u, "top") for u in units],
            "bottom": [self._entries(u, "bottom") for u in units],
        }

    def _entries(self, unit: int, side: str) -> list[dict[str, Any]]:
        ranked = self.ranked(side)
        rows = (ranked.values, ranked.positions, ranked.boxes)
        found = []
        for index, value, position, box in zip(
            self._indices(unit, side), *(row[unit].tolist() for row in rows), strict=False
        ):
            place = None if -1 in position else position
            entry = {"value": finite([value])[0], "index": index, "image": self.sources[index]}
            found.append({**entry, "position": place, "box": box})
        return found

    def sheet(
        self,
        units: Sequence[int | str | Objective] | None = None,
        *,
        columns: int | None = None,
    ) -> Image.Image:
        """Draw a row of the highest and one of the lowest for each unit, boxes outlined.

        Raises
        ------
        FeatvizError
            If the images are no images, none has a value, or these are more than 32 units.
        """
        chosen = [self.unit(u) for u in (range(len(self)) if units is None else units)]
        if len(chosen) > MOST:
            raise FeatvizError(f"a sheet has at most {MOST} objectives, not {len(chosen)}")
        rows = [(u, side) for u in chosen for side in ("top", "bottom")]
        width = max((len(self._indices(u, s)) for u, s in rows), default=0)
        if not width:
            raise FeatvizError("there are no examples to draw: no image has a value")
        shown: list[Tensor] = []
        labels: list[str] = []
        for unit, side in rows:
            ranked, pictures = self.ranked(side), self.images(unit, side)
            for rank, picture in enumerate(pictures):
                shown.append(_outline(picture, ranked.boxes[unit, rank].tolist()))
                name = self.sources[int(ranked.indices[unit, rank])]
                which = "highest" if side == "top" else "lowest"
                title = f"{self.objectives[unit]} {which}: " if rank == 0 else ""
                labels.append(f"{title}{float(ranked.values[unit, rank]):.4g} {name}")
            for _ in range(width - len(pictures)):
                shown.append(torch.ones_like(shown[0]))
                labels.append("")
        return sheets.sheet(torch.stack(shown), labels, columns=columns or width)

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
        chosen = [self.unit(u) for u in (range(len(self)) if units is None else units)]
        return [_images.save(page, path, self._record(chosen))]

    def _repr_png_(self) -> bytes:
        return _images.png_bytes(self.sheet(range(min(len(self), MOST))))


def _crop(image: Tensor, box: list[int]) -> Tensor:
    axes = len(box) // 2
    return image[(slice(None), *(slice(box[a], box[axes + a]) for a in range(axes)))].clone()


def _outline(image: Tensor, box: list[int]) -> Tensor:
    """Return an image with a line around a box, unless that is the whole picture."""
    if image.ndim != 3 or box == [0, 0, *image.shape[1:]]:
        return image
    drawn = image.clone()
    colour = torch.tensor(_OUTLINE[: len(image)]).view(-1, 1, 1)
    wide = max(1, min(image.shape[1:]) // 112)
    top, left, low, right = box
    for rows, cols in (
        (slice(top, top + wide), slice(left, right)),
        (slice(max(low - wide, 0), low), slice(left, right)),
        (slice(top, low), slice(left, left + wide)),
        (slice(top, low), slice(max(right - wide, 0), right)),
    ):
        drawn[:, rows, cols] = colour
    return drawn
