"""The images of a stream that somebody still wants, and no others."""

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
    """Images by their index, each once; the others are forgotten as soon as nobody wants them.

    Images are held as PNG in 8 bits, anything else as it is. With ``keep=False`` nothing is
    held, and the dataset is asked again.

    Raises
    ------
    FeatvizError
        If nothing is to be held of a dataset that can be gone through only once.
    """

    def __init__(
        self, source: ImageDataset, channels: int, size: tuple[int, ...], *, keep: bool = True
    ) -> None:
        if not keep and not source.repeatable:
            raise FeatvizError("the dataset gives its images only once: keep them, keep=True")
        self._source, self._channels, self._size = source, channels, size
        self._keep = keep
        self._held: dict[int, bytes | Tensor | None] = {}
        #: What the wanted images are called, by their index.
        self.names: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._held)

    @property
    def nbytes(self) -> int:
        """How much memory the images take."""
        held = [h for h in self._held.values() if h is not None]
        return sum(len(h) if isinstance(h, bytes) else h.nbytes for h in held)

    def settle(self, wanted: set[int], batch: Mapping[int, tuple[DatasetItem, Tensor]]) -> None:
        """Keep what is wanted of what there was and of ``batch``, and forget the rest."""
        for index in [i for i in self._held if i not in wanted]:
            del self._held[index], self.names[index]
        for index in wanted & batch.keys():
            if index not in self._held:
                item, image = batch[index]
                self.names[index] = item.name
                self._held[index] = self._pack(image) if self._keep else None

    def __getitem__(self, index: int) -> Tensor:
        """Return one image as floats (C, *size) in [0, 1]."""
        held = self._held[index]
        if held is None:
            return self._source[index].image(self._channels, self._size)
        if isinstance(held, torch.Tensor):
            return held.clone()
        with Image.open(io.BytesIO(held)) as picture:
            pixels = np.array(picture, dtype=np.float32) / 255
        return torch.from_numpy(pixels.reshape(*self._size, -1)).movedim(-1, 0).contiguous()

    def _pack(self, image: Tensor) -> bytes | Tensor:
        if len(self._size) != 2 or self._channels not in (1, 3):
            return image.clone()  # not a view, which would hold its whole batch
        buffer = io.BytesIO()
        sheets.to_pil(image).save(buffer, "png", compress_level=1)
        return buffer.getvalue()
