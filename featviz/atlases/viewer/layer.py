"""The files of one layer's pages: sheets of thumbnails, images and unit data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

import pyarrow as pa

from featviz.atlases.remote_files import folder_of
from featviz.atlases.store import Store
from featviz.atlases.viewer import tile_sheets
from featviz.atlases.viewer.data import figures, number, runs, script, shown
from featviz.atlases.viewer.order import chain
from featviz.atlases.viewer.words import by_word
from featviz.errors import FeatvizError

#: Units per file of details.
CHUNK = 50
#: Thumbnails of a layer on the first page.
STRIP = 16
#: Side in pixels of the dataset examples, which are shown larger than tiles.
EXAMPLE = 144
SIGNS = {"+": "pos", "-": "neg"}


@dataclasses.dataclass
class LayerPages:
    """The pages of one layer of an atlas; :meth:`build` writes their files."""

    store: Store
    name: str
    records: pa.Table  # of this layer, one row per image
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
        """Write all files, and return the summary for the first page."""
        first = _first_of_each_sign(self.rows)
        signs = {s: [u for u in self.units if (u, s) in first] for s in SIGNS}
        tiles = {s: tile_sheets.Sheets(len(units)) for s, units in signs.items() if units}
        positions = {(u, s): i for s, units in signs.items() for i, u in enumerate(units)}
        strip = tile_sheets.Sheets(len(_spread(self.units, STRIP)), columns=STRIP)
        in_strip = {u: i for i, u in enumerate(_spread(self.units, STRIP))}
        encoded: list[Future[None]] = []
        for row, tile in self._write_images():
            unit, sign = row["unit"], row["sign"]
            if first.get((unit, sign)) is not row:
                continue
            finished = tiles[sign].place(positions[unit, sign], tile)
            if finished is not None:
                name = _sheet(sign, finished[0])
                encoded.append(
                    self.pool.submit(self._write_sheet, name, finished[1], tile_sheets.QUALITY)
                )
            if unit in in_strip and sign == ("+" if (unit, "+") in first else "-"):
                finished = strip.place(in_strip[unit], tile)
                if finished is not None:
                    encoded.append(
                        self.pool.submit(
                            self._write_sheet, "strip.webp", finished[1], tile_sheets.QUALITY
                        )
                    )
        statistics = {row["unit"]: row for row in self.store.get("units", self.name).to_pylist()}
        examples = self._write_examples()
        self._write_details(statistics, examples)
        by_sign: dict[str, Any] = {}
        for sign, sheets in tiles.items():
            rows = [first.get((unit, sign)) for unit in self.units]
            by_sign[sign] = {
                "sheets": sheets.layout([_sheet(sign, k) for k in range(len(sheets))]),
                "tile": [-1 if row is None else positions[row["unit"], sign] for row in rows],
                "score": [row and number(row["score"]) for row in rows],
                "failed": [
                    i for i, row in enumerate(rows) if row and (row["failure"] or not row["file"])
                ],
            }
        links = {
            unit: list(zip(row["similar"] or [], row["similarity"] or [], strict=False))
            for unit, row in statistics.items()
        }
        index_of = {unit: i for i, unit in enumerate(self.units)}
        order = None
        if any(links.values()):
            order = [index_of[unit] for unit in chain(self.units, links)]
        rated = [number(statistics.get(u, {}).get("interpretability")) for u in self.units]
        body = {
            "version": version,
            "units": runs(self.units),
            "signs": by_sign,
            "order": order,
            "interpretability": rated if any(value is not None for value in rated) else None,
        }
        words = by_word(self.units, statistics)
        if words:
            self._write("words.js", script(f"{self.folder}/words", words))
        self._write("layer.js", script(f"{self.folder}/layer", {**body, "chunk": CHUNK}))
        for future in encoded:
            future.result()
        return {
            "units": runs(self.units),
            "strip": {"units": list(in_strip), "columns": strip.columns, "rows": strip.rows(0)},
            "signs": list(tiles),
            "words": bool(words),
            "settings": self.settings,
            "files": len(self.written),
        }

    def _write(self, name: str, content: bytes) -> None:
        self.store.files.write(f"{self.folder}/{name}", content)
        self.written.add(f"{self.folder}/{name}")

    def _write_sheet(self, name: str, page: Any, quality: int) -> None:
        self._write(name, tile_sheets.encode(page, quality))

    def _write_images(self) -> Iterator[tuple[dict[str, Any], Any]]:
        """Write every image as stored; yield its row, with its file and size, and its tile."""
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
            for row, tile in zip(rows, self.pool.map(self._write_image, rows, images), strict=True):
                yield row, tile
                self.tick()

    def _write_image(self, row: dict[str, Any], image: dict[str, Any] | None) -> Any:
        row["file"], row["size"] = None, None
        content = image and image["bytes"]
        if not content:
            return None
        try:
            tile, row["size"] = tile_sheets.fit(content)
        except FeatvizError as error:
            row["failure"] = row["failure"] or str(error)
            return None
        suffix = tile_sheets.ending(content)
        if suffix is None:
            row["failure"] = row["failure"] or "the stored image is neither PNG, WebP nor JPEG"
            return tile
        name = f"{row['unit']}.{SIGNS[row['sign']]}.{row['seed']}"
        row["file"] = f"pictures/{name}.{folder_of(row['settings_hash'])}{suffix}"
        self._write(row["file"], content)
        return tile

    def _write_examples(self) -> dict[int, dict[str, Any]]:
        """Write a sheet of examples for each unit; return their contents by unit."""
        table = self.store.get("examples", self.name)
        columns = [table[name].to_pylist() for name in ("unit", "side", "rank")]
        by_unit: dict[int, dict[str, list[int]]] = {}
        units = set(self.units)
        order = sorted(range(len(table)), key=lambda i: columns[2][i])
        for i in order:
            unit, side = columns[0][i], columns[1][i]
            if unit in units and side in ("top", "bottom"):
                by_unit.setdefault(unit, {"top": [], "bottom": []})[side].append(i)

        def write(item: tuple[int, dict[str, list[int]]]) -> tuple[int, dict[str, Any]]:
            contents = self._write_unit_examples(table, *item)
            self.tick()
            return item[0], contents

        return dict(self.pool.map(write, by_unit.items()))

    def _write_unit_examples(
        self, table: pa.Table, unit: int, sides: dict[str, list[int]]
    ) -> dict[str, Any]:
        indices = [i for rows in sides.values() for i in rows]
        rows = {i: table.slice(i, 1).to_pylist()[0] for i in indices}
        page = tile_sheets.Sheets(len(indices), EXAMPLE, 9)
        finished = None
        for position, i in enumerate(indices):
            image = rows[i]["image"]
            try:
                tile = tile_sheets.fit(image["bytes"], EXAMPLE)[0] if image else None
            except FeatvizError:
                tile = None
            finished = page.place(position, tile)
        assert finished is not None
        self._write_sheet(f"examples/{unit}.webp", finished[1], 80)
        texts = {
            side: [[number(rows[i]["value"]), rows[i]["source"], rows[i]["index"]] for i in ranked]
            for side, ranked in sides.items()
        }
        return {**texts, "columns": page.columns, "rows": page.rows(0)}

    def _write_details(self, statistics: dict[int, Any], examples: dict[int, Any]) -> None:
        """Write the data of unit pages, :data:`CHUNK` units per file."""
        by_unit: dict[int, list[dict[str, Any]]] = {}
        for row in self.rows:
            by_unit.setdefault(row["unit"], []).append(row)
        for start in range(0, len(self.units), CHUNK):
            part = [
                {
                    "pictures": [shown(row) for row in by_unit[unit]],
                    "known": figures(statistics[unit]) if unit in statistics else None,
                    "examples": examples.get(unit),
                }
                for unit in self.units[start : start + CHUNK]
            ]
            name = f"details-{start // CHUNK}"
            self._write(f"{name}.js", script(f"{self.folder}/{name}", part))


def _first_of_each_sign(rows: list[dict[str, Any]]) -> dict[tuple[int, str], dict[str, Any]]:
    """Return the image that represents each unit and sign: the first success, by seed."""
    first: dict[tuple[int, str], dict[str, Any]] = {}
    order = {h: i for i, h in enumerate(dict.fromkeys(row["settings_hash"] for row in rows))}
    ranked = sorted(
        rows, key=lambda r: (r["failure"] is not None, order[r["settings_hash"]], r["seed"])
    )
    for row in ranked:
        if row["sign"] in SIGNS:
            first.setdefault((row["unit"], row["sign"]), row)
    return first


def _spread(units: list[int], count: int) -> list[int]:
    """Return ``count`` evenly spaced units."""
    count = min(count, len(units))
    return [units[i * len(units) // count] for i in range(count)]


def _sheet(sign: str, number: int) -> str:
    return f"{SIGNS[sign]}-{number}.webp"
