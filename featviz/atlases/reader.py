"""Read an atlas: its layers and units, and the images and dataset examples of a unit."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image

from featviz.atlases.metadata import check_format
from featviz.atlases.schema import KEY
from featviz.atlases.store import Store
from featviz.errors import FeatvizError, FeatvizWarning, did_you_mean, shorten
from featviz.io import decode, images, sheets
from featviz.validation import positive_int

#: The side in pixels of an image on a sheet.
_TILE = 128


@dataclasses.dataclass(frozen=True, repr=False)
class AtlasImage:
    """An image of an atlas: ``image`` (Pillow) and ``record``, the rest of its row.

    ``settings`` and ``versions`` of the record are dictionaries.
    """

    image: Image.Image
    record: dict[str, Any]

    def __repr__(self) -> str:
        size = "x".join(map(str, reversed(self.image.size)))
        return f"<AtlasImage {self.record['objective']}; seed {self.record['seed']}; {size}>"

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.image.save(buffer, "png")
        return buffer.getvalue()


class Atlas:
    """The images of a network's units, in a folder or at any URL that fsspec supports.

    ``atlas["_blocks.10", 42]`` is an :class:`AtlasImage`, ``["_blocks.10", 42, "-"]`` its negative,
    and ``["_blocks.10", 42, "+", 1]`` the image with seed 1.

    The folder is never modified. Damaged shards are skipped, with a warning.

    Parameters
    ----------
    url
        A folder, ``s3://…``, ``memory://…``.
    settings
        Selects images if the folder contains several settings: the first characters of a settings
        hash. By default, images are looked up in the oldest settings that have them.

    Raises
    ------
    FeatvizError
        If there is no atlas, or it does not contain these settings.
    """

    def __init__(self, url: str | Path, settings: str | None = None) -> None:
        self.store: Store = Store(url)
        self.about = self.store.about
        check_format(self.store)
        records = self.store.records()
        for reason in self.store.damaged.values():
            warnings.warn(f"{reason}; it is skipped", FeatvizWarning, stacklevel=2)
        if not self.about and not len(records):
            raise FeatvizError(
                f"no atlas in {str(url)!r}: create one with featviz atlas MODEL -o DIR"
            )
        if settings is not None:
            stored = records["settings_hash"].unique().to_pylist()
            hashes = list(dict.fromkeys([*self.about.get("settings", {}), *stored]))
            matches = [h for h in hashes if h.startswith(settings)]
            if len(matches) != 1:
                raise FeatvizError(
                    f"settings {settings!r} match {len(matches)} of the atlas: {', '.join(hashes)}"
                )
            records = records.filter(pc.field("settings_hash") == matches[0])
        self.records: pa.Table = records.combine_chunks()
        #: Whether Ctrl-C interrupted the run that returned this atlas.
        self.interrupted = False

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"<Atlas {self.store.files.url}: {len(self)} images of {len(self.layers)} layers>"

    @functools.cached_property
    def layers(self) -> list[str]:
        """The layers with images, in network order."""
        order = {layer["name"]: i for i, layer in enumerate(self.about.get("layers", ()))}
        return sorted(self._units, key=lambda name: order.get(name, len(order)))

    def units(self, layer: str) -> list[int]:
        """Return the units of a layer that have images, sorted."""
        return sorted(self._units.get(layer, ()))

    def of(self, layer: str, unit: int) -> list[dict[str, Any]]:
        """Return the records of all images of a unit: positive first, then by seed."""
        rows = [row for _, _, _, row in self._units.get(layer, {}).get(unit, ())]
        return self.records.take(rows).to_pylist() if rows else []

    def __getitem__(self, key: tuple[Any, ...]) -> AtlasImage:
        """Return ``[layer, unit]``, ``[layer, unit, sign]`` or ``[layer, unit, sign, seed]``.

        Raises
        ------
        FeatvizError
            If there is no such image, or its shard cannot be read.
        """
        if not isinstance(key, tuple) or not 2 <= len(key) <= 4:
            raise FeatvizError(
                "an atlas is indexed by [layer, unit], then optionally sign and seed"
            )
        layer, unit, sign, seed = (*key, "+", None)[:4] if len(key) == 2 else (*key, None)[:4]
        record = self.records.slice(self._find(str(layer), int(unit), sign, seed), 1).to_pylist()[0]
        row = self._shard(record["shard"]).slice(record["row"], 1).to_pylist()
        if not row or any(row[0][name] != record[name] for name in KEY):
            raise FeatvizError(f"{record['shard']!r} has changed: open the atlas again")
        try:
            image = Image.open(io.BytesIO(row[0].pop("image")["bytes"]))
            image.load()
            for name in ("settings", "versions"):
                row[0][name] = json.loads(row[0][name])
        except Exception as error:  # decoders can fail in any way
            reason = shorten(str(error))
            raise FeatvizError(f"{record['shard']!r} is damaged: {reason}") from error
        return AtlasImage(image, row[0])

    def sheet(self, *, count: int = 12) -> Image.Image:
        """Draw one image each of ``count`` units, evenly over the atlas; what a notebook shows.

        Raises
        ------
        FeatvizError
            If there are no images, or a shard cannot be read.
        """
        units = [(layer, unit) for layer in self.layers for unit in self.units(layer)]
        if not units:
            raise FeatvizError("the atlas has no images yet")
        shown = units[:: -(-len(units) // positive_int("count", count))]
        firsts = [self[layer, unit, self._units[layer][unit][0][0]] for layer, unit in shown]
        tiles = [decode.from_pil(first.image, 3, (_TILE, _TILE)) for first in firsts]
        return sheets.sheet(torch.cat(tiles), [first.record["objective"] for first in firsts])

    def _repr_png_(self) -> bytes | None:
        return images.png_bytes(self.sheet()) if len(self) else None

    def _find(self, layer: str, unit: int, sign: str, seed: int | None) -> int:
        """Return the row of an image."""
        if layer not in self._units:
            raise FeatvizError(f"no layer {layer!r} in the atlas{did_you_mean(layer, self.layers)}")
        if unit not in self._units[layer]:
            raise FeatvizError(f"no unit {unit} of {layer!r} in the atlas")
        stored = self._units[layer][unit]
        matches = [p for p in stored if p[0] == sign and (seed is None or p[1] == seed)]
        if not matches:
            available = ", ".join(dict.fromkeys(f"{s!r} with seed {n}" for s, n, _, _ in stored))
            with_seed = "" if seed is None else f" with seed {seed}"
            raise FeatvizError(
                f"no {sign!r}{with_seed} of unit {unit} of {layer!r}: the atlas has {available}"
            )
        # The oldest settings, so that all units agree, then the lowest seed.
        return min(matches, key=lambda p: (p[2], p[1]))[3]

    @functools.cached_property
    def _units(self) -> dict[str, dict[int, list[tuple[str, int, int, int]]]]:
        """The sign, seed, position of the settings and row of each image, by layer and unit."""
        names = ("layer", "unit", "sign", "seed", "settings_hash")
        columns = [self.records[name].to_pylist() for name in names]
        order = {h: i for i, h in enumerate(self.about.get("settings", ()))}
        by_layer: dict[str, dict[int, list[tuple[str, int, int, int]]]] = {}
        for row, (layer, unit, sign, seed, digest) in enumerate(zip(*columns, strict=True)):
            position = order.setdefault(digest, len(order))
            by_layer.setdefault(layer, {}).setdefault(unit, []).append((sign, seed, position, row))
        for units in by_layer.values():
            for found in units.values():
                found.sort()
        return by_layer

    @functools.cached_property
    def _shard(self) -> Callable[[str], pa.Table]:
        """Read a shard, caching the last few."""
        return functools.lru_cache(maxsize=4)(self.store.pictures)

    def units_of(self, layer: str) -> pa.Table:
        """Return the statistics of a layer's units: :data:`featviz.atlases.schema.UNITS`."""
        return self.store.get("units", layer)

    def examples_of(self, layer: str) -> pa.Table:
        """Return a layer's dataset examples: :data:`featviz.atlases.schema.EXAMPLES`."""
        return self.store.get("examples", layer)
