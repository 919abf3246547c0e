"""Datasets in batches of images, and a word about those that cannot be read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from featviz.bars import tqdm
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.io.dataset import DatasetItem, ImageDataset, UnreadableError
from featviz.types import Tensor

#: The most names of unreadable files that a warning lists.
_LISTED = 5


def read_batches(
    dataset: ImageDataset,
    channels: int,
    shape: tuple[int, ...],
    count: int,
    *,
    skipped: dict[str, str] | None = None,
    progress: bool | None = None,
) -> Iterator[dict[int, tuple[DatasetItem, Tensor]]]:
    """Yield up to ``count`` images (C, *shape) at a time, with their items, by index.

    Images that cannot be read are noted in ``skipped``, name and reason; without it they raise.
    """
    batch: dict[int, tuple[DatasetItem, Tensor]] = {}
    for item in tqdm(dataset, total=dataset.count, unit="image", progress=progress):
        try:
            batch[item.index] = item, item.image(channels, shape)
        except UnreadableError as error:
            if skipped is None:
                raise
            skipped[item.name] = str(error)
        if len(batch) == count:
            yield batch
            batch = {}
    if batch:
        yield batch


def warn_of_skipped(skipped: dict[str, str], count: int) -> None:
    """Warn the caller of a verb of unreadable images beside ``count`` others; raise if alone."""
    if not skipped:
        return
    names = ", ".join(list(skipped)[:_LISTED]) + (", …" if len(skipped) > _LISTED else "")
    message = f"{len(skipped)} of {len(skipped) + count} images cannot be read: {names}"
    if not count:
        raise FeatvizError(message)
    warnings.warn(message, FeatvizWarning, stacklevel=4)  # past the verb and its decorator
