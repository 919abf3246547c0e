"""Contact sheets of an atlas in TensorBoard, logged for each layer during the run."""

from __future__ import annotations

import collections
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from featviz.atlases.batch_renderer import Row
from featviz.io import sheets
from featviz.io.event_files import open_events


class ContactSheetWriter:
    """Logs each stored batch as ``atlas/LAYER``; the step is the number of images of the layer.

    Raises
    ------
    FeatvizError
        If the folder cannot be written.
    """

    def __init__(self, folder: str | Path, stored: pa.Table) -> None:
        self._writer = open_events(folder)
        self._done = collections.Counter(stored["layer"].to_pylist())

    def __call__(self, rows: Sequence[Row]) -> None:
        """Log the images of a batch and a histogram of their scores."""
        layer = rows[0]["layer"]
        self._done[layer] += len(rows)
        images = [Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB") for row in rows]
        pixels = torch.from_numpy(np.stack([np.asarray(p) for p in images]))
        page = sheets.sheet(
            pixels.movedim(3, 1) / 255, [f"{r['sign']}{r['unit']} seed {r['seed']}" for r in rows]
        )
        step = self._done[layer]
        self._writer.add_image(f"atlas/{layer}", np.asarray(page), step, dataformats="HWC")
        scores = [row["score"] for row in rows if row["score"] is not None]
        if scores:
            self._writer.add_histogram(f"score/{layer}", np.asarray(scores), step)
        self._writer.flush()

    def __enter__(self) -> ContactSheetWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
