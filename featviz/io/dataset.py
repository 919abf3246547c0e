"""Datasets in every form that people keep them in, one image at a time."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from featviz.errors import FeatvizError
from featviz.io import decode
from featviz.io import images as _images
from featviz.resample import resize
from featviz.types import Tensor

#: A folder, a file, or what yields images: paths, Pillow images, tensors, rows that hold one.
Dataset: TypeAlias = Iterable[Any] | str | Path
#: How far resampling may have taken values out of [0, 1].
_ROUNDING = 1e-3


class UnreadableError(FeatvizError):
    """One image of a dataset that cannot be decoded; the others are not to blame."""


@dataclasses.dataclass(frozen=True)
class DatasetItem:
    """What a dataset holds at ``index``: the image as it was given, and what to call it."""

    index: int
    name: str
    given: Any

    def image(self, channels: int, shape: tuple[int, ...]) -> Tensor:
        """Return it as floats (C, *shape) in [0, 1]; see :func:`as_image`.

        Raises
        ------
        UnreadableError
            If it is encoded and cannot be decoded.
        FeatvizError
            If it is no image of these channels in [0, 1], with its name.
        """
        try:
            image = as_image(self.given, channels, shape)
        except UnreadableError:
            raise
        except FeatvizError as error:
            raise FeatvizError(f"image {self.name}: {error}") from error
        low, high = image.aminmax()
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # also for NaN
            raise FeatvizError(
                f"image {self.name} must be in [0, 1], not from {low:.3g} to {high:.3g}: give it "
                "without normalization"
            )
        return image if low >= 0 and high <= 1 else image.clamp(0, 1)


class ImageDataset:
    """A dataset that is gone through in its order; nothing is decoded on the way.

    A folder gives the images below it, sorted by path and named relative to it. Of tuples the
    first item is the image, of mappings the column ``image`` or the first that holds one.

    Raises
    ------
    FeatvizError
        If it can be no dataset, or is a folder without an image.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._root: Path | None = None
        if isinstance(dataset, torch.utils.data.DataLoader):
            raise FeatvizError("give the dataset itself, not a DataLoader: loader.dataset")
        if isinstance(dataset, (str, Path)):
            place = Path(dataset)
            single = place.is_file()
            self._root = place.parent if single else place
            dataset = [place] if single else picture_files(place)
        elif not (hasattr(dataset, "__iter__") or hasattr(dataset, "__getitem__")):
            kind = type(dataset).__name__
            raise FeatvizError(f"a dataset is a folder or yields images, not {kind}")
        self._rows: Any = dataset
        mapped = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        #: How many images there are, or None where nobody knows.
        self.count: int | None = len(dataset) if mapped else None  # type: ignore[arg-type]

    @property
    def repeatable(self) -> bool:
        """Whether an image can be asked for again."""
        return self.count is not None

    def __iter__(self) -> Iterator[DatasetItem]:
        if self.count is None:
            for index, row in enumerate(self._rows):
                yield self._item(index, row)
        else:
            for index in range(self.count):
                yield self[index]

    def __getitem__(self, index: int) -> DatasetItem:
        """Return what lies at ``index``, also once more; not of what only yields images."""
        return self._item(index, self._rows[index])

    def _item(self, index: int, row: Any) -> DatasetItem:
        name, given = _name(row, index)
        if self._root is not None:
            name = given.relative_to(self._root).as_posix()
        return DatasetItem(index, name, given)


def _name(row: Any, index: int) -> tuple[str, Any]:
    given = row[0] if isinstance(row, (tuple, list)) else row
    given = _column(given) if isinstance(given, Mapping) else given
    path = given.get("path") if isinstance(given, Mapping) else given
    if isinstance(path, (str, Path)) and str(path):
        return str(path), given
    return str(index), given


def _column(row: Mapping[str, Any]) -> Any:
    """Return the image of a row of several columns."""
    if _encoded(row):
        return row
    if "image" in row:
        return row["image"]
    for value in row.values():
        axes = getattr(value, "ndim", 0)
        if isinstance(value, Image.Image) or axes > 1 or _encoded(value):
            return value
    raise FeatvizError(f"no column of {', '.join(map(str, row))} holds images: name it 'image'")


def _encoded(value: Any) -> bool:
    """Whether it is an image file as ``datasets`` keeps it: bytes, or the path of them."""
    return isinstance(value, Mapping) and {"bytes", "path"} >= set(value) and bool(value)


def picture_files(folder: str | Path) -> list[Path]:
    """Return all images below a folder, in order of their names.

    Raises
    ------
    FeatvizError
        If there is no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FeatvizError(f"no folder {str(folder)!r} of images")
    kinds = Image.registered_extensions()
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in kinds and p.is_file())
    if not found:
        raise FeatvizError(f"no images in {str(folder)!r}")
    return found


def as_image(given: Any, channels: int, shape: tuple[int, ...]) -> Tensor:
    """Return one image of a dataset as floats (C, *shape), cropped and resized.

    It is cropped about the centre to the aspect of ``shape`` and resized to it (bilinear,
    antialiased). Whole numbers are divided by 255; numpy images may have their channels last.

    Raises
    ------
    UnreadableError
        If it is encoded and cannot be decoded.
    FeatvizError
        If it has another number of axes or channels.
    """
    if isinstance(given, Mapping) and _encoded(given):
        given = io.BytesIO(given["bytes"]) if given.get("bytes") else given["path"]
    if isinstance(given, (str, Path, io.BytesIO, Image.Image)):
        return _decoded(given, channels, shape)
    image = torch.as_tensor(given)
    if isinstance(given, np.ndarray):
        if given.ndim == len(shape) and channels == 1:
            image = image[None]
        elif given.ndim == len(shape) + 1 and given.shape[0] != channels == given.shape[-1]:
            image = image.movedim(-1, 0)
    if not image.is_floating_point():
        image = image.float() / 255
    if image.ndim != len(shape) + 1 or image.shape[0] != channels:
        raise FeatvizError(f"image of shape {tuple(image.shape)}, expected ({channels}, *{shape})")
    return _fit(image.detach().cpu().float(), shape)


def _decoded(given: Any, channels: int, shape: tuple[int, ...]) -> Tensor:
    if len(shape) != 2 or channels not in (1, 3):
        axes = "x".join(map(str, shape))
        raise FeatvizError(f"an image has no {channels} channels of {axes}: give tensors")
    if isinstance(given, Image.Image):
        return decode.from_pil(given, channels, shape)[0]
    try:
        if isinstance(given, io.BytesIO):
            with Image.open(given) as picture:
                return decode.from_pil(picture, channels, shape)[0]
        return _images.read(given, channels, shape)[0]
    except (FeatvizError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableError(" ".join(str(error).split())) from error


def _fit(image: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(image.shape[1:]) == shape:
        return image
    scale = min(side / new for side, new in zip(image.shape[1:], shape, strict=True))
    for axis, new in enumerate(shape):
        side = image.shape[axis + 1]
        keep = min(side, max(1, round(new * scale)))
        image = image.narrow(axis + 1, (side - keep) // 2, keep)
    return resize(image[None], shape, antialias=True)[0]
