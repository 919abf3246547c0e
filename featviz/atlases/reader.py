"""Look into an atlas: which layers and units there are, a unit's pictures, its examples."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from featviz.atlases.store import Store, first_of_each
from featviz.errors import FeatvizError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Entry:
    """One picture: ``image`` (Pillow) and ``record``, its row without the picture.

    The record's ``settings`` and ``versions`` are dictionaries.
    """

    image: Image.Image
    record: dict[str, Any]

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.image.save(buffer, "png")
        return buffer.getvalue()


class Atlas:
    """The pictures of a network's units, in a folder or at a URL that fsspec knows.

    ``atlas["_blocks.10", 42]`` is an :class:`Entry`; ``["_blocks.10", 42, "-"]`` its negative and
    ``["_blocks.10", 42, "+", 1]`` the one with seed 1.

    Parameters
    ----------
    url
        A folder, ``s3://…``, ``memory://…``.
    settings
        Which pictures, where the folder holds several kinds: the start of their settings' hash.

    Raises
    ------
    FeatvizError
        If there is no atlas, or no such settings in it.
    """

    def __init__(self, url: str | Path, settings: str | None = None) -> None:
        self.store = Store(url)
        self.about = self.store.about
        records = first_of_each(self.store.records())
        if not self.about and not len(records):
            raise FeatvizError(f"no atlas in {str(url)!r}: featviz atlas MODEL -o DIR makes one")
        if settings is not None:
            hashes = records["settings_hash"].unique().to_pylist()
            chosen = [h for h in hashes if h.startswith(settings)]
            if len(chosen) != 1:
                raise FeatvizError(
                    f"settings {settings!r} name {len(chosen)} of the atlas: {', '.join(hashes)}"
                )
            records = records.filter(pc.field("settings_hash") == chosen[0])
        self.records: pa.Table = records
        #: Whether Ctrl-C ended the run that this is the result of.
        self.interrupted = False

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"<Atlas {self.store.files.url}: {len(self)} pictures of {len(self.layers)} layers>"

    @functools.cached_property
    def layers(self) -> list[str]:
        """The layers of which there are pictures, in the order of the network."""
        found = dict.fromkeys(self.records["layer"].to_pylist())
        order = {layer["name"]: i for i, layer in enumerate(self.about.get("layers", ()))}
        return sorted(found, key=lambda name: order.get(name, len(order)))

    def units(self, layer: str) -> list[int]:
        """Return the units of a layer of which there are pictures, sorted."""
        return sorted({unit for name, unit, _, _ in self._places if name == layer})

    def of(self, layer: str, unit: int) -> list[dict[str, Any]]:
        """Return the records of all pictures of a unit: positive first, then by seed."""
        names = self._names
        rows = [i for i, place in enumerate(names) if place[:2] == (layer, unit)]
        rows.sort(key=names.__getitem__)
        return self.records.take(rows).to_pylist() if rows else []

    def __getitem__(self, key: tuple[Any, ...]) -> Entry:
        if not isinstance(key, tuple) or not 2 <= len(key) <= 4:
            raise FeatvizError("an atlas takes [layer, unit], then a sign and a seed if need be")
        layer, unit, sign, seed = (*key, "+", None)[:4] if len(key) == 2 else (*key, None)[:4]
        row = self._find(str(layer), int(unit), str(sign), seed)
        record = self.records.slice(row, 1).to_pylist()[0]
        whole = self.store.pictures(record["shard"]).slice(record["row"], 1).to_pylist()[0]
        picture = Image.open(io.BytesIO(whole.pop("image")["bytes"]))
        for name in ("settings", "versions"):
            whole[name] = json.loads(whole[name])
        return Entry(picture, whole)

    def _find(self, layer: str, unit: int, sign: str, seed: int | None) -> int:
        if seed is None:
            known = [k[3] for k in self._places if k[:3] == (layer, unit, sign)]
            seed = min(known, default=0)
        row = self._places.get((layer, unit, sign, seed))
        if row is not None:
            return row
        if layer not in self.layers:
            raise FeatvizError(f"no layer {layer!r} in the atlas{did_you_mean(layer, self.layers)}")
        if unit not in self.units(layer):
            raise FeatvizError(f"no unit {unit} of {layer!r} in the atlas")
        have = sorted({(k[2], k[3]) for k in self._places if k[:2] == (layer, unit)})
        shown = ", ".join(f"{s!r} with seed {n}" for s, n in have)
        raise FeatvizError(f"no {sign!r} with seed {seed} of unit {unit} of {layer!r}: {shown}")

    @functools.cached_property
    def _places(self) -> dict[tuple[str, int, str, int], int]:
        """The rows of the pictures; of several settings, those that were stored first."""
        found: dict[tuple[str, int, str, int], int] = {}
        for i, place in enumerate(self._names):
            found.setdefault(place, i)
        return found

    @functools.cached_property
    def _names(self) -> list[tuple[str, int, str, int]]:
        columns = (self.records[name].to_pylist() for name in ("layer", "unit", "sign", "seed"))
        return list(zip(*columns, strict=True))

    def units_of(self, layer: str) -> pa.Table:
        """Return what is known of each unit of a layer: :data:`featviz.atlases.schema.UNITS`."""
        return self.store.get("units", layer)

    def examples_of(self, layer: str) -> pa.Table:
        """Return a layer's data set examples: :data:`featviz.atlases.schema.EXAMPLES`."""
        return self.store.get("examples", layer)
