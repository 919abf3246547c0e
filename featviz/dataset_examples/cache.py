"""Cache of the images of a stream that are still needed."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image

from featviz.errors import FeatvizError
from featviz.io import sheets
from featviz.io.dataset import DatasetItem, ImageDataset
from featviz.types import Tensor


class ExampleCache:
    """Images by index, each stored once, and removed as soon as nothing needs them.

    Images are stored as 8-bit PNG, other data as it is. With ``keep=False`` nothing is stored, and
    images are read from the dataset again.

    Raises
    ------
    FeatvizError
        If nothing is to be stored of a dataset that can be read only once.
    """

    def __init__(
        self, source: ImageDataset, channels: int, size: tuple[int, ...], *, keep: bool = True
    ) -> None:
        if not keep and not source.repeatable:
            raise FeatvizError("the dataset can be read only once: keep the images, keep=True")
        self._source, self._channels, self._size = source, channels, size
        self._keep = keep
        self._stored: dict[int, bytes | Tensor | None] = {}
        #: The names of the images, by index.
        self.names: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def nbytes(self) -> int:
        """How many bytes the stored images take."""
        stored = [data for data in self._stored.values() if data is not None]
        return sum(len(data) if isinstance(data, bytes) else data.nbytes for data in stored)

    def settle(self, wanted: set[int], batch: Mapping[int, tuple[DatasetItem, Tensor]]) -> None:
        """Store the images of ``batch`` that are ``wanted``, and remove all that are not."""
        for index in [i for i in self._stored if i not in wanted]:
            del self._stored[index], self.names[index]
        for index in wanted & batch.keys():
            if index not in self._stored:
                item, image = batch[index]
                self.names[index] = item.name
                self._stored[index] = self._pack(image) if self._keep else None

    def __getitem__(self, index: int) -> Tensor:
        """Return one image as floats (C, *size) in [0, 1]."""
        data = self._stored[index]
        if data is None:
            return self._source[index].image(self._channels, self._size)
        if isinstance(data, torch.Tensor):
            return data.clone()
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.array(image, dtype=np.float32) / 255
        return torch.from_numpy(pixels.reshape(*self._size, -1)).movedim(-1, 0).contiguous()

    def _pack(self, image: Tensor) -> bytes | Tensor:
        if len(self._size) != 2 or self._channels not in (1, 3):
            return image.clone()  # not a view, which would hold its whole batch
        buffer = io.BytesIO()
        sheets.to_pil(image).save(buffer, "png", compress_level=1)
        return buffer.getvalue()
