"""Look into an atlas: which layers and units there are, a unit's images, its examples."""

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
from PIL import Image

from featviz.atlases.metadata import check_format
from featviz.atlases.schema import KEY
from featviz.atlases.store import Store
from featviz.errors import FeatvizError, FeatvizWarning, did_you_mean


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image: ``image`` (Pillow) and ``record``, its row without the picture.

    The record's ``settings`` and ``versions`` are dictionaries.
    """

    image: Image.Image
    record: dict[str, Any]

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.image.save(buffer, "png")
        return buffer.getvalue()


class Atlas:
    """The images of a network's units, in a folder or at a URL that fsspec knows.

    ``atlas["_blocks.10", 42]`` is an :class:`Entry`; ``["_blocks.10", 42, "-"]`` its negative and
    ``["_blocks.10", 42, "+", 1]`` the one with seed 1.

    Nothing in the folder is changed. A damaged shard is left out, with a warning.

    Parameters
    ----------
    url
        A folder, ``s3://…``, ``memory://…``.
    settings
        Which images, where the folder holds several kinds: the start of their settings' hash.
        Without it, an image is looked up in those settings that the folder had first.

    Raises
    ------
    FeatvizError
        If there is no atlas, or no such settings in it.
    """

    def __init__(self, url: str | Path, settings: str | None = None) -> None:
        self.store = Store(url)
        self.about = self.store.about
        check_format(self.store)
        records = self.store.records()
        for reason in self.store.damaged.values():
            warnings.warn(f"{reason}; it is left out", FeatvizWarning, stacklevel=2)
        if not self.about and not len(records):
            raise FeatvizError(f"no atlas in {str(url)!r}: featviz atlas MODEL -o DIR makes one")
        if settings is not None:
            there = records["settings_hash"].unique().to_pylist()
            hashes = list(dict.fromkeys([*self.about.get("settings", {}), *there]))
            chosen = [h for h in hashes if h.startswith(settings)]
            if len(chosen) != 1:
                raise FeatvizError(
                    f"settings {settings!r} name {len(chosen)} of the atlas: {', '.join(hashes)}"
                )
            records = records.filter(pc.field("settings_hash") == chosen[0])
        self.records: pa.Table = records.combine_chunks()
        #: Whether Ctrl-C ended the run that this is the result of.
        self.interrupted = False

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"<Atlas {self.store.files.url}: {len(self)} images of {len(self.layers)} layers>"

    @functools.cached_property
    def layers(self) -> list[str]:
        """The layers of which there are images, in the order of the network."""
        order = {layer["name"]: i for i, layer in enumerate(self.about.get("layers", ()))}
        return sorted(self._units, key=lambda name: order.get(name, len(order)))

    def units(self, layer: str) -> list[int]:
        """Return the units of a layer of which there are images, sorted."""
        return sorted(self._units.get(layer, ()))

    def of(self, layer: str, unit: int) -> list[dict[str, Any]]:
        """Return the records of all images of a unit: positive first, then by seed."""
        rows = [row for _, _, _, row in self._units.get(layer, {}).get(unit, ())]
        return self.records.take(rows).to_pylist() if rows else []

    def __getitem__(self, key: tuple[Any, ...]) -> Entry:
        """Return ``[layer, unit]``, ``[layer, unit, sign]`` or ``[layer, unit, sign, seed]``.

        Raises
        ------
        FeatvizError
            If there is no such image, or its shard cannot be read.
        """
        if not isinstance(key, tuple) or not 2 <= len(key) <= 4:
            raise FeatvizError("an atlas takes [layer, unit], then a sign and a seed if need be")
        layer, unit, sign, seed = (*key, "+", None)[:4] if len(key) == 2 else (*key, None)[:4]
        record = self.records.slice(self._find(str(layer), int(unit), sign, seed), 1).to_pylist()[0]
        whole = self._shard(record["shard"]).slice(record["row"], 1).to_pylist()
        if not whole or any(whole[0][name] != record[name] for name in KEY):
            raise FeatvizError(f"{record['shard']!r} has changed: open the atlas again")
        picture = Image.open(io.BytesIO(whole[0].pop("image")["bytes"]))
        for name in ("settings", "versions"):
            whole[0][name] = json.loads(whole[0][name])
        return Entry(picture, whole[0])

    def _find(self, layer: str, unit: int, sign: str, seed: int | None) -> int:
        """Return the row of an image."""
        if layer not in self._units:
            raise FeatvizError(f"no layer {layer!r} in the atlas{did_you_mean(layer, self.layers)}")
        if unit not in self._units[layer]:
            raise FeatvizError(f"no unit {unit} of {layer!r} in the atlas")
        there = self._units[layer][unit]
        fitting = [p for p in there if p[0] == sign and (seed is None or p[1] == seed)]
        if not fitting:
            shown = ", ".join(dict.fromkeys(f"{s!r} with seed {n}" for s, n, _, _ in there))
            which = "" if seed is None else f" with seed {seed}"
            raise FeatvizError(f"no {sign!r}{which} of unit {unit} of {layer!r}: {shown}")
        # Of one settings for all units, then the lowest seed.
        return min(fitting, key=lambda p: (p[2], p[1]))[3]

    @functools.cached_property
    def _units(self) -> dict[str, dict[int, list[tuple[str, int, int, int]]]]:
        """By layer and unit: sign, seed, place of the settings, and row of each picture."""
        names = ("layer", "unit", "sign", "seed", "settings_hash")
        columns = [self.records[name].to_pylist() for name in names]
        order = {h: i for i, h in enumerate(self.about.get("settings", ()))}
        found: dict[str, dict[int, list[tuple[str, int, int, int]]]] = {}
        for row, (layer, unit, sign, seed, digest) in enumerate(zip(*columns, strict=True)):
            place = order.setdefault(digest, len(order))
            found.setdefault(layer, {}).setdefault(unit, []).append((sign, seed, place, row))
        for units in found.values():
            for pictures in units.values():
                pictures.sort()
        return found

    @functools.cached_property
    def _shard(self) -> Callable[[str], pa.Table]:
        """Reads a shard, and keeps those of the last few units."""
        return functools.lru_cache(maxsize=4)(self.store.pictures)

    def units_of(self, layer: str) -> pa.Table:
        """Return what is known of each unit of a layer: :data:`featviz.atlases.schema.UNITS`."""
        return self.store.get("units", layer)

    def examples_of(self, layer: str) -> pa.Table:
        """Return a layer's dataset examples: :data:`featviz.atlases.schema.EXAMPLES`."""
        return self.store.get("examples", layer)
