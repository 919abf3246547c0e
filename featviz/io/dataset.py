"""Datasets in all common forms, one image at a time."""

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

#: A folder, a file, or an iterable of images: paths, Pillow images, tensors, rows with an image.
Dataset: TypeAlias = Iterable[Any] | str | Path
#: How far resampling may push values out of [0, 1].
_TOLERANCE = 1e-3


class UnreadableError(FeatvizError):
    """An image of a dataset that cannot be decoded; the other images may still be readable."""


@dataclasses.dataclass(frozen=True)
class DatasetItem:
    """The item of a dataset at ``index``: the image as it was given, and its name.

    ``crop`` is the central fraction of each side that is kept of an image file.
    """

    index: int
    name: str
    given: Any
    crop: float = 1.0

    def image(self, channels: int, shape: tuple[int, ...]) -> Tensor:
        """Return the image as floats (C, *shape) in [0, 1]; see :func:`as_image`.

        Raises
        ------
        UnreadableError
            If it is encoded and cannot be decoded.
        FeatvizError
            If it is not an image with these channels in [0, 1]; the message has its name.
        """
        try:
            image = as_image(self.given, channels, shape, self.crop)
        except UnreadableError:
            raise
        except FeatvizError as error:
            raise FeatvizError(f"image {self.name}: {error}") from error
        low, high = image.aminmax()
        if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # also for NaN
            raise FeatvizError(
                f"image {self.name} must be in [0, 1], not from {low:.3g} to {high:.3g}: give it "
                "without normalization"
            )
        return image if low >= 0 and high <= 1 else image.clamp(0, 1)


class ImageDataset:
    """A dataset that is iterated in order; nothing is decoded while iterating.

    A folder yields all images below it, sorted by path and named relative to it. In tuples the
    first item is the image, in mappings the column ``image`` or the first that holds one. ``crop``
    is the central fraction of each side that is kept of image files, see :class:`featviz.Model`.

    Raises
    ------
    FeatvizError
        If it cannot be a dataset, or is a folder without images.
    """

    def __init__(self, dataset: Dataset, crop: float = 1.0) -> None:
        self._crop = crop
        self._root: Path | None = None
        if isinstance(dataset, torch.utils.data.DataLoader):
            raise FeatvizError("give the dataset itself, not a DataLoader: loader.dataset")
        if isinstance(dataset, (str, Path)):
            if not str(dataset).strip() or "\0" in str(dataset):
                raise FeatvizError("an empty path names no images: give a folder")
            path = Path(dataset)
            is_file = path.is_file()
            self._root = path.parent if is_file else path
            dataset = [path] if is_file else picture_files(path)
        elif not (hasattr(dataset, "__iter__") or hasattr(dataset, "__getitem__")):
            type_name = type(dataset).__name__
            raise FeatvizError(
                f"a dataset must be a folder or an iterable of images, not {type_name}"
            )
        self._rows: Any = dataset
        mapped = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        #: The number of images, or None if it is unknown.
        self.count: int | None = len(dataset) if mapped else None  # type: ignore[arg-type]

    @property
    def repeatable(self) -> bool:
        """Whether an image can be read again."""
        return self.count is not None

    def __iter__(self) -> Iterator[DatasetItem]:
        if self.count is None:
            for index, row in enumerate(self._rows):
                yield self._item(index, row)
        else:
            for index in range(self.count):
                yield self[index]

    def __getitem__(self, index: int) -> DatasetItem:
        """Return the item at ``index``, any number of times, if the dataset is repeatable."""
        return self._item(index, self._rows[index])

    def _item(self, index: int, row: Any) -> DatasetItem:
        name, image = _name(row, index)
        if self._root is not None:
            name = image.relative_to(self._root).as_posix()
        return DatasetItem(index, name, image, self._crop)


def _name(row: Any, index: int) -> tuple[str, Any]:
    image = row[0] if isinstance(row, (tuple, list)) else row
    image = _column(image) if isinstance(image, Mapping) else image
    path = image.get("path") if isinstance(image, Mapping) else image
    if isinstance(path, (str, Path)) and str(path):
        return str(path), image
    return str(index), image


def _column(row: Mapping[str, Any]) -> Any:
    """Return the image in a row with several columns."""
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
    """Return whether it is an image file as in ``datasets``: its bytes, or their path."""
    return isinstance(value, Mapping) and {"bytes", "path"} >= set(value) and bool(value)


def picture_files(folder: str | Path) -> list[Path]:
    """Return all images below a folder, sorted by path.

    Raises
    ------
    FeatvizError
        If the folder is missing or has no images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FeatvizError(f"no folder {str(folder)!r} of images")
    suffixes = Image.registered_extensions()
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    if not paths:
        raise FeatvizError(f"no images in {str(folder)!r}")
    return paths


def as_image(given: Any, channels: int, shape: tuple[int, ...], crop: float = 1.0) -> Tensor:
    """Return one image of a dataset as floats (C, *shape), cropped and resized.

    It is centre-cropped to the aspect ratio of ``shape`` and resized (bilinear, antialiased); of an
    image file or a Pillow image, only the central fraction ``crop`` of each side is kept.
    Integers are divided by 255; numpy images may have their channels last.

    Raises
    ------
    UnreadableError
        If it is encoded and cannot be decoded.
    FeatvizError
        If it has the wrong number of axes or channels.
    """
    if isinstance(given, Mapping) and _encoded(given):
        given = io.BytesIO(given["bytes"]) if given.get("bytes") else given["path"]
    if isinstance(given, (str, Path, io.BytesIO, Image.Image)):
        return _decoded(given, channels, shape, crop)
    try:
        image = torch.as_tensor(given)
    except Exception as error:  # of an object of any kind
        name = type(given).__name__
        raise FeatvizError(f"an image must be a tensor, an array or a file, not {name}") from error
    if image.is_complex() or image.layout != torch.strided:
        raise FeatvizError(f"an image must be a dense tensor of real numbers, not {image.dtype}")
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


def _decoded(encoded: Any, channels: int, shape: tuple[int, ...], crop: float) -> Tensor:
    if len(shape) != 2 or channels not in (1, 3):
        size = "x".join(map(str, shape))
        raise FeatvizError(f"image files cannot have {channels} channels of {size}: give tensors")
    if isinstance(encoded, Image.Image):
        return decode.from_pil(encoded, channels, shape, crop)[0]
    try:
        if isinstance(encoded, io.BytesIO):
            with Image.open(encoded) as image:
                return decode.from_pil(image, channels, shape, crop)[0]
        return _images.read(encoded, channels, shape, crop)[0]
    except (FeatvizError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableError(" ".join(str(error).split())) from error


def _fit(image: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(image.shape[1:]) == shape:
        return image
    scale = min(side / target for side, target in zip(image.shape[1:], shape, strict=True))
    for axis, target in enumerate(shape):
        side = image.shape[axis + 1]
        cropped_side = min(side, max(1, round(target * scale)))
        image = image.narrow(axis + 1, (side - cropped_side) // 2, cropped_side)
    return resize(image[None], shape, antialias=True)[0]
