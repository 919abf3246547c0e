"""Data-set examples: which images move units most, in one pass over as many as there are."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from featviz._version import __version__
from featviz.dataset_examples.cache import Album
from featviz.dataset_examples.correlation import Correlation
from featviz.dataset_examples.ranking import Extremes
from featviz.dataset_examples.readout import Readout
from featviz.dataset_examples.receptive_field import Field, measure
from featviz.dataset_examples.result import Examples, Ranked
from featviz.dataset_examples.statistics import Spread
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.io.dataset import Dataset, Item, Source, UnreadableError
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives import objective as as_objective
from featviz.objectives.scene import IMAGE
from featviz.seeds import generator
from featviz.types import Precision, Tensor
from featviz.validation import positive_int

#: Names of unreadable files that a warning has.
_NAMED = 5


def examples(
    model: Model,
    dataset: Dataset,
    objective: Objective | str | Sequence[Objective | str],
    *,
    k: int = 9,
    fraction: float = 0.95,
    correlate: bool = False,
    keep: bool = True,
    sample: int = 0,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    progress: bool = False,
) -> Examples:
    """Return the images with the highest and the lowest values of each objective.

    One pass; memory does not grow with the number of images. All objectives, thousands too, are
    read from the same truncated forward pass. The values are those of ``objective(model, image)``
    on images that are cropped about the centre to the aspect of ``model.size`` and resized to it
    (bilinear, antialiased).

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`.
    dataset
        A folder of pictures (with all below it), a file, or anything that yields tensors
        (C, *size) in [0, 1], Pillow pictures, paths, tuples that start with one of these (as
        ``torch.utils.data`` data sets do) or rows with a column of them (as ``datasets`` do).
    objective
        One objective or a list: ``[fv.channel("_blocks.10", i) for i in range(112)]``.
    k
        How many images to keep at each end. Of equal values the first image ranks higher.
    fraction
        How much of the squared gradient the boxes of channels and neurons hold; see
        :func:`featviz.dataset_examples.receptive_field.measure`.
    correlate
        Whether to measure how the units of each layer correlate over the images, too.
    keep
        Hold the images that rank, as PNG, each once: at most 2 k for each objective. With False
        they are read from the data set again when they are looked at.
    sample, seed
        So many images more, drawn at random with ``seed``, whatever their values: ``drawn``.
    batch_size
        Images that go through the network together: 4 on a CPU, 32 elsewhere.
    device, precision, progress
        As in :func:`featviz.render`.

    A picture file that cannot be read is skipped, and a warning names it. Ctrl-C ends the run
    and returns what there is, with ``interrupted`` set.

    Raises
    ------
    FeatvizError
        If there is no image, or an objective does not fit the network or is about a whole batch.
    """
    if not isinstance(model, Model):
        raise FeatvizError("examples takes a featviz.Model: wrap the network first")
    positive_int("k", k)
    low = devices.half(precision)
    if not 0 < fraction <= 1:
        raise FeatvizError(f"fraction must be above 0 and at most 1, not {fraction}")
    given = [objective] if isinstance(objective, (str, Objective)) else objective
    goals = [as_objective(o) for o in given]
    home = model.on(devices.resolve(device, model.device))
    batch_size = positive_int("batch_size", devices.together(home.device, batch_size))
    source = Source(dataset)
    settings = {
        "version": __version__,
        "verb": "examples",
        "model": model.name,
        "k": k,
        "fraction": fraction,
        "precision": precision,
    }
    if sample < 0:
        raise FeatvizError(f"sample must not be negative, not {sample}")
    lots = generator(seed, "sampled images")
    tally = _Tally(home, goals, source, k, correlate=correlate, keep=keep, sample=sample, lots=lots)
    interrupted = False
    try:
        with home.session(), torch.no_grad():
            for batch in _batches(source, home, batch_size, tally.skipped, progress):
                with torch.autocast(home.device.type, low, enabled=low is not None):
                    tally.update(batch)
    except KeyboardInterrupt:
        if not tally.count:
            raise
        interrupted = True
    if tally.skipped:
        _warn(tally.skipped, tally.count)
    if not tally.count:
        raise FeatvizError("there are no images in the data set")
    return tally.result(fraction, settings, interrupted)


def _batches(
    source: Source, model: Model, size: int, skipped: dict[str, str], progress: bool
) -> Iterator[dict[int, tuple[Item, Tensor]]]:
    """Yield so many images at a time, by their index; note what cannot be read."""
    from tqdm.auto import tqdm

    batch: dict[int, tuple[Item, Tensor]] = {}
    for item in tqdm(source, total=source.count, unit="image", disable=None if progress else True):
        try:
            batch[item.index] = item, item.image(model.channels, model.size)
        except UnreadableError as error:
            skipped[item.name] = str(error)
        if len(batch) == size:
            yield batch
            batch = {}
    if batch:
        yield batch


def _warn(skipped: dict[str, str], count: int) -> None:
    names = ", ".join(list(skipped)[:_NAMED]) + (", …" if len(skipped) > _NAMED else "")
    message = f"{len(skipped)} of {len(skipped) + count} images cannot be read: {names}"
    if not count:
        raise FeatvizError(message)
    warnings.warn(message, FeatvizWarning, stacklevel=3)


class _Tally:
    """What is known after some images; it grows with units and ``k``, not with images."""

    def __init__(
        self,
        model: Model,
        goals: list[Objective],
        source: Source,
        k: int,
        *,
        correlate: bool,
        keep: bool,
        sample: int,
        lots: torch.Generator,
    ) -> None:
        self.model, self.k = model, k
        self.readout = Readout(model, goals)
        self.top = Extremes(len(goals), k)
        self.bottom = Extremes(len(goals), k, largest=False)
        self.drawn = Extremes(1, sample)  # the images with the largest lots
        self._lots = lots
        self.spread = Spread(len(goals))
        self.album = Album(source, model.channels, model.size, keep=keep)
        self.skipped: dict[str, str] = {}
        self.count = 0
        self._last: dict[int, tuple[Item, Tensor]] = {}
        self.correlations: dict[str, tuple[list[int], Correlation]] = {}
        if correlate:
            layers: dict[str, list[int]] = {}
            for unit, goal in enumerate(goals):
                if len(goal.layers) == 1:
                    layers.setdefault(goal.layers[0], []).append(unit)
            self.correlations = {n: (u, Correlation(len(u))) for n, u in layers.items()}

    def update(self, batch: dict[int, tuple[Item, Tensor]]) -> None:
        """Take the next images."""
        images = torch.stack([image for _, image in batch.values()]).to(self.model.device)
        scene, values = self.readout(images)
        self._last = batch  # an interrupt may come between two of the next lines
        self.count += len(batch)
        indices = torch.tensor(list(batch))
        entered = 0
        for side in (self.top, self.bottom):
            units, ranks, samples = side.update(values, indices)
            side.places[units, ranks] = self.readout.places(scene, units, samples, side.largest)
            entered += len(units)
        if self.drawn.k:
            lots = torch.rand(len(batch), 1, generator=self._lots)
            entered += len(self.drawn.update(lots, indices)[0])
        self.spread.update(values)
        for members, correlation in self.correlations.values():
            correlation.update(values[:, members])
        if entered:
            self._settle()

    def _settle(self) -> None:
        sides = (self.top, self.bottom, self.drawn)
        wanted = torch.cat([side.indices.flatten() for side in sides]).unique()
        self.album.settle({i for i in wanted.tolist() if i >= 0}, self._last)

    def result(self, fraction: float, settings: dict[str, Any], interrupted: bool) -> Examples:
        self._settle()
        layers = sorted({name for name in self.readout.layers if name is not None})
        fields = {n: measure(self.model, "input" if n == IMAGE else n, fraction) for n in layers}
        return Examples(
            objectives=[str(o) for o in self.readout.objectives],
            top=self._ranked(self.top, fields),
            bottom=self._ranked(self.bottom, fields),
            spread=self.spread,
            count=self.count,
            drawn=[i for i in self.drawn.indices.flatten().tolist() if i >= 0],
            album=self.album,
            correlations=self.correlations,
            skipped=self.skipped,
            interrupted=interrupted,
            settings=settings,
        )

    def _ranked(self, side: Extremes, fields: dict[str, Field]) -> Ranked:
        k, size = min(self.k, self.count), self.model.size
        units = len(side.values)
        positions = torch.full((units, k, len(size)), -1)
        boxes = torch.tensor([0] * len(size) + list(size)).repeat(units, k, 1)
        for layer, field in fields.items():
            here = [unit for unit, name in enumerate(self.readout.layers) if name == layer]
            positions[here] = field.positions(side.places[here, :k])
            boxes[here] = field.boxes(positions[here])
        return Ranked(side.values[:, :k], side.indices[:, :k], positions, boxes)
