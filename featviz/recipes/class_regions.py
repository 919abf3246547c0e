"""The activation atlas: a data set's activations on a plane, each region as a picture."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from featviz._version import __version__
from featviz.errors import FeatvizError
from featviz.io import images as _images
from featviz.io.dataset import Dataset
from featviz.io.files import make_folder, write_bytes
from featviz.networks import devices
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.optim.callbacks import Callback, Step
from featviz.optim.settings import Settings
from featviz.optim.settings_keywords import SettingsKeywords
from featviz.options import takes
from featviz.recipes import drawing
from featviz.recipes.atlas_page import page_of
from featviz.recipes.direction_pictures import picture_directions
from featviz.recipes.gathering import Gathered
from featviz.recipes.plane import Cell, cells_of, inverse_moments
from featviz.recipes.stored_activations import activations_in, places_in
from featviz.types import Tensor, Unpack
from featviz.validation import positive_int

#: The side of a cell on the page, in pixels, and the smallest part of it that a picture takes.
_CELL, _LEAST_SHARE = 72, 0.5
#: How many classes and images of a cell are recorded.
_CLASSES, _IMAGES = 5, 12


@dataclasses.dataclass(frozen=True)
class ActivationAtlas(drawing.Page):
    """Pictures of the regions of a layer's activations. [Carter2019]_.

    Attributes
    ----------
    layer
        The layer's name.
    gathered
        The activations, and the images that they are from.
    places
        (N, 2) in [0, 1]: where each is on the plane, to the right and up.
    method
        How they were placed: ``umap`` or ``pca``.
    grid
        Cells a side.
    cells
        The cells with enough activations.
    pictures
        (len(cells), C, H, W) in [0, 1].
    classes
        The names of the classes, if the network has them.
    """

    layer: str
    gathered: Gathered
    places: Tensor
    method: str
    grid: int
    cells: list[Cell]
    pictures: Tensor
    classes: tuple[str, ...] | None = None

    def sheet(self) -> Image.Image:
        """Draw the cells where they are; those with few activations are smaller."""
        page = Image.new("RGB", (_CELL * self.grid, _CELL * self.grid), "white")
        counts = torch.tensor([len(cell.members) for cell in self.cells]).float()
        usual = counts.quantile(0.75)
        for cell, count, picture in zip(self.cells, counts, self.pictures, strict=True):
            share = max(_LEAST_SHARE, float((count / usual).clamp(0, 1).sqrt()))
            tile = drawing.tile(picture, round(_CELL * share))
            corner = (_CELL - tile.width) // 2
            page.paste(tile, (cell.column * _CELL + corner, cell.row * _CELL + corner))
        return page

    def regions(self, name: str) -> list[Cell]:
        """Return the cells of a class, those with the largest part of its images first.

        A cell belongs to the class that the network predicts for most of the images in it.

        Raises
        ------
        FeatvizError
            If no cell does.
        """
        found = [(cell, self._counts(cell)) for cell in self.cells]
        found = [(cell, counts) for cell, counts in found if counts.most_common(1)[0][0] == name]
        if not found:
            raise FeatvizError(f"no cell of the atlas belongs to {name!r}")
        return [cell for cell, counts in sorted(found, key=lambda pair: -pair[1][name])]

    def record(self) -> dict[str, Any]:
        """Return the cells with their classes and images, as JSON values."""
        return {
            "format": "featviz activation atlas",
            "version": __version__,
            "layer": self.layer,
            "method": self.method,
            "grid": self.grid,
            "activations": len(self.gathered),
            "cells": [
                {
                    "row": cell.row,
                    "column": cell.column,
                    "count": len(cell.members),
                    "classes": {
                        name: round(n / len(cell.members), 4)
                        for name, n in self._counts(cell).most_common(_CLASSES)
                    },
                    "images": self._images(cell),
                }
                for cell in self.cells
            ],
        }

    def _counts(self, cell: Cell) -> Counter[str]:
        indices = self.gathered.classes[cell.members].tolist()
        named = self.classes or ()
        return Counter(named[i] if 0 <= i < len(named) else f"class {i}" for i in indices)

    def _images(self, cell: Cell) -> list[str]:
        indices = self.gathered.images[cell.members].tolist()
        return [self.gathered.names[i] for i in dict.fromkeys(indices)][:_IMAGES]


@takes(Settings)
def activation_atlas(
    model: Model | str,
    images: Dataset,
    layer: str,
    out: str | Path,
    *,
    grid: int = 12,
    per_image: int = 1,
    least: int = 1,
    method: Literal["auto", "umap", "pca"] = "auto",
    whiten: bool = True,
    settings: Settings | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | None = None,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool | None = None,
    **options: Unpack[SettingsKeywords],
) -> ActivationAtlas:
    """Write an activation atlas of ``layer`` to the folder ``out``, and return it.

    Activations at random positions of all images are placed on a plane, near where they are alike;
    the plane is divided into cells, and the mean activation of each is rendered. The folder gets
    ``atlas.png``, ``atlas.json`` and ``index.html``, a page to zoom in and to search for classes.
    The same call goes on where it was killed: at most the batch in flight is lost. [Carter2019]_.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`, or the name of a network.
    images
        A folder or dataset, as in :func:`featviz.examples`.
    layer
        A layer with maps (K, *grid), or the patch tokens of a transformer.
    out
        A folder, which is made.
    grid
        Cells a side.
    per_image
        Positions of each image; the paper has one.
    least
        Cells with fewer activations stay empty.
    method
        ``umap``, ``pca``, or the first that is installed; see :func:`planar`.
    whiten
        Multiply the directions by the inverse second moments of the activations, as in the paper:
        what all activations share is not rendered again and again.
    settings
        How the pictures are optimized; keyword arguments override its fields. ``size=96`` takes a
        fifth of the time of 224.
    seed
        The seed of the positions, of the plane, and of all pictures.
    batch_size, device, callbacks, progress
        As in :func:`featviz.render`.

    Raises
    ------
    FeatvizError
        If the folder belongs to another atlas, there are no images, or the layer has no positions.
    KeyboardInterrupt
        For Ctrl-C; the pictures so far are stored.
    """
    model = as_model(model, "activation_atlas")
    for name, value in (("grid", grid), ("per_image", per_image), ("least", least)):
        positive_int(name, value)
    network = model.on(devices.resolve(device, model.device))
    plan = Settings.of(settings, options).resolve(network)
    folder = make_folder(out)
    gathered = activations_in(folder, network, images, layer, per_image, seed, progress)
    places, used = places_in(folder, gathered, method, seed)
    cells = cells_of(places, grid, least)
    if not cells:
        raise FeatvizError(f"no cell has {least} of the {len(gathered)} activations")
    vectors = torch.stack([gathered.vectors[cell.members].mean(0) for cell in cells])
    if whiten:
        vectors = vectors @ inverse_moments(gathered.vectors)
    pictures = picture_directions(
        network,
        layer,
        vectors,
        plan,
        seed=seed,
        folder=folder / "cells",
        batch_size=batch_size,
        callbacks=callbacks,
        progress=progress,
    )
    atlas = ActivationAtlas(layer, gathered, places, used, grid, cells, pictures, model.classes)
    record = atlas.record() | {"model": model.name, "settings": plan.record, "seed": seed}
    sheet = atlas.sheet()
    write_bytes(folder / "atlas.png", _images.png_bytes(sheet))
    write_bytes(folder / "atlas.json", json.dumps(record, ensure_ascii=False).encode())
    write_bytes(folder / "index.html", page_of(record, sheet.size).encode())
    return atlas
