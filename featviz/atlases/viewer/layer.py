"""The files of one layer's pages: sheets of small images, the images, and what is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

import pyarrow as pa

from featviz.atlases.remote_files import folder_of
from featviz.atlases.store import Store
from featviz.atlases.viewer import tile_sheets as sheets
from featviz.atlases.viewer.data import number, numbers, runs, script
from featviz.atlases.viewer.order import chain
from featviz.errors import FeatvizError

#: Units whose details are in one file.
CHUNK = 50
#: Small images of a layer on the first page.
STRIP = 16
#: Dataset examples are shown larger than tiles.
EXAMPLE = 144
SIGNS = {"+": "pos", "-": "neg"}


@dataclasses.dataclass
class Layer:
    """One layer of an atlas, and where its files go; :meth:`build` writes them."""

    store: Store
    name: str
    records: pa.Table  # of this layer, one row an image
    pool: Executor
    tick: Callable[[], object]

    def __post_init__(self) -> None:
        self.folder = f"site/layers/{folder_of(self.name)}"
        rows: list[dict[str, Any]] = self.records.to_pylist()
        self.rows = sorted(rows, key=lambda r: (r["unit"], r["sign"] != "+"))
        self.units = sorted({row["unit"] for row in rows})
        self.settings: dict[str, str] = {}
        self.written: set[str] = set()

    def build(self, version: str) -> dict[str, Any]:
        """Write everything, and return what the first page needs to know."""
        first = _first_of_each_sign(self.rows)
        signs = {s: [u for u in self.units if (u, s) in first] for s in SIGNS}
        tiles = {s: sheets.Sheets(len(units)) for s, units in signs.items() if units}
        places = {(u, s): i for s, units in signs.items() for i, u in enumerate(units)}
        strip = sheets.Sheets(len(_spread(self.units, STRIP)), columns=STRIP)
        chosen = {u: i for i, u in enumerate(_spread(self.units, STRIP))}
        encoded: list[Future[None]] = []
        for row, tile in self._pictures():
            unit, sign = row["unit"], row["sign"]
            if first.get((unit, sign)) is not row:
                continue
            full = tiles[sign].place(places[unit, sign], tile)
            if full is not None:
                name = _sheet(sign, full[0])
                encoded.append(self.pool.submit(self._sheet, name, full[1], sheets.QUALITY))
            if unit in chosen and sign == ("+" if (unit, "+") in first else "-"):
                full = strip.place(chosen[unit], tile)
                if full is not None:
                    encoded.append(
                        self.pool.submit(self._sheet, "strip.webp", full[1], sheets.QUALITY)
                    )
        known = {row["unit"]: row for row in self.store.get("units", self.name).to_pylist()}
        examples = self._examples()
        self._details(known, examples)
        parts: dict[str, Any] = {}
        for sign, placed in tiles.items():
            rows = [first.get((unit, sign)) for unit in self.units]
            parts[sign] = {
                "sheets": placed.layout([_sheet(sign, k) for k in range(len(placed))]),
                "tile": [-1 if row is None else places[row["unit"], sign] for row in rows],
                "score": [row and number(row["score"]) for row in rows],
                "failed": [
                    i for i, row in enumerate(rows) if row and (row["failure"] or not row["file"])
                ],
            }
        links = {
            unit: list(zip(row["similar"] or [], row["similarity"] or [], strict=False))
            for unit, row in known.items()
        }
        at = {unit: i for i, unit in enumerate(self.units)}
        order = [at[unit] for unit in chain(self.units, links)] if any(links.values()) else None
        body = {"version": version, "units": runs(self.units), "signs": parts, "order": order}
        self._write("layer.js", script(f"{self.folder}/layer", {**body, "chunk": CHUNK}))
        for future in encoded:
            future.result()
        return {
            "units": runs(self.units),
            "strip": {"units": list(chosen), "columns": strip.columns, "rows": strip.rows(0)},
            "signs": list(tiles),
            "settings": self.settings,
            "files": len(self.written),
        }

    def _write(self, name: str, content: bytes) -> None:
        self.store.files.write(f"{self.folder}/{name}", content)
        self.written.add(f"{self.folder}/{name}")

    def _sheet(self, name: str, page: Any, quality: int) -> None:
        self._write(name, sheets.encode(page, quality))

    def _pictures(self) -> Iterator[tuple[dict[str, Any], Any]]:
        """Write every image as it is stored; yield its row, now with its file, and its tile."""
        shards: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows:
            shards.setdefault(row["shard"], []).append(row)
        for shard, rows in shards.items():
            table = self.store.pictures(shard, ["image", "settings"])
            for row in rows:
                if row["settings_hash"] not in self.settings:
                    text = table["settings"][row["row"]].as_py()
                    self.settings[row["settings_hash"]] = text or "{}"
            images = [table["image"][row["row"]].as_py() for row in rows]
            for row, tile in zip(rows, self.pool.map(self._picture, rows, images), strict=True):
                yield row, tile
                self.tick()

    def _picture(self, row: dict[str, Any], image: dict[str, Any] | None) -> Any:
        row["file"], row["size"] = None, None
        content = image and image["bytes"]
        if not content:
            return None
        try:
            tile, row["size"] = sheets.fit(content)
        except FeatvizError as error:
            row["failure"] = row["failure"] or str(error)
            return None
        kind = sheets.ending(content)
        if kind is None:
            row["failure"] = row["failure"] or "the stored image is neither PNG, WebP nor JPEG"
            return tile
        name = f"{row['unit']}.{SIGNS[row['sign']]}.{row['seed']}"
        row["file"] = f"pictures/{name}.{folder_of(row['settings_hash'])}{kind}"
        self._write(row["file"], content)
        return tile

    def _examples(self) -> dict[int, dict[str, Any]]:
        """Write a sheet of each unit's examples; return what is in them."""
        table = self.store.get("examples", self.name)
        columns = [table[name].to_pylist() for name in ("unit", "side", "rank")]
        found: dict[int, dict[str, list[int]]] = {}
        wanted = set(self.units)
        order = sorted(range(len(table)), key=lambda i: columns[2][i])
        for i in order:
            unit, side = columns[0][i], columns[1][i]
            if unit in wanted and side in ("top", "bottom"):
                found.setdefault(unit, {"top": [], "bottom": []})[side].append(i)

        def make(item: tuple[int, dict[str, list[int]]]) -> tuple[int, dict[str, Any]]:
            made = self._unit_examples(table, *item)
            self.tick()
            return item[0], made

        return dict(self.pool.map(make, found.items()))

    def _unit_examples(
        self, table: pa.Table, unit: int, sides: dict[str, list[int]]
    ) -> dict[str, Any]:
        places = [i for rows in sides.values() for i in rows]
        rows = {i: table.slice(i, 1).to_pylist()[0] for i in places}
        page = sheets.Sheets(len(places), EXAMPLE, 9)
        full = None
        for place, i in enumerate(places):
            image = rows[i]["image"]
            try:
                tile = sheets.fit(image["bytes"], EXAMPLE)[0] if image else None
            except FeatvizError:
                tile = None
            full = page.place(place, tile)
        assert full is not None
        self._sheet(f"examples/{unit}.webp", full[1], 80)
        texts = {
            side: [[number(rows[i]["value"]), rows[i]["source"], rows[i]["index"]] for i in listed]
            for side, listed in sides.items()
        }
        return {**texts, "columns": page.columns, "rows": page.rows(0)}

    def _details(self, known: dict[int, Any], examples: dict[int, Any]) -> None:
        """Write what only a unit's own page shows, some units to a file."""
        of: dict[int, list[dict[str, Any]]] = {}
        for row in self.rows:
            of.setdefault(row["unit"], []).append(row)
        for start in range(0, len(self.units), CHUNK):
            part = [
                {
                    "pictures": [_shown(row) for row in of[unit]],
                    "known": _known(known[unit]) if unit in known else None,
                    "examples": examples.get(unit),
                }
                for unit in self.units[start : start + CHUNK]
            ]
            name = f"details-{start // CHUNK}"
            self._write(f"{name}.js", script(f"{self.folder}/{name}", part))


def _first_of_each_sign(rows: list[dict[str, Any]]) -> dict[tuple[int, str], dict[str, Any]]:
    """Choose the image that stands for a unit: one that came out, of the lowest seed."""
    first: dict[tuple[int, str], dict[str, Any]] = {}
    hashes = {h: i for i, h in enumerate(dict.fromkeys(row["settings_hash"] for row in rows))}
    rank = sorted(
        rows, key=lambda r: (r["failure"] is not None, hashes[r["settings_hash"]], r["seed"])
    )
    for row in rank:
        if row["sign"] in SIGNS:
            first.setdefault((row["unit"], row["sign"]), row)
    return first


def _spread(units: list[int], count: int) -> list[int]:
    """Choose some of the units, evenly."""
    count = min(count, len(units))
    return [units[i * len(units) // count] for i in range(count)]


def _sheet(sign: str, number: int) -> str:
    return f"{SIGNS[sign]}-{number}.webp"


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    names = ("objective", "sign", "seed", "failure", "redirected", "file", "size")
    figures = {name: number(row[name]) for name in ("score", "score_held_out", "seconds")}
    return {**{n: row[n] for n in names}, **figures, "settings": row["settings_hash"]}


def _known(row: dict[str, Any]) -> dict[str, Any]:
    lists = {name: numbers(row[name]) for name in ("quantiles", "similarity")}
    figures = {name: number(row[name]) for name in ("mean", "std")}
    plain = {name: row[name] for name in ("images", "similar", "similar_by")}
    return {**plain, **figures, **lists}
