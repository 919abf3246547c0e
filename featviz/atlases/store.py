"""Storage of an atlas: immutable Parquet shards for each layer, and an index of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from featviz.atlases import about, checksums, schema
from featviz.atlases.layout import (
    LAYER_TABLES,
    LIGHT,
    RECORDS,
    Key,
    encode,
    keys_of,
    place,
    table_name,
)
from featviz.atlases.remote_files import Files
from featviz.errors import FeatvizError, shorten

_INDEX = "index.parquet"
ABOUT = "atlas.json"


class DamagedError(FeatvizError):
    """A file of an atlas has invalid content."""


class Store:
    """The files of an atlas.

    ``pictures/layer-…/*.parquet`` are the shards, ``units/`` and ``examples/`` have one file per
    layer, and ``atlas.json`` describes the network. ``index.parquet`` is a cache that saves opening
    every shard: its entries are used for shards of matching name and size; others are read.

    Every method raises :class:`FeatvizError` for a file that cannot be read or written, and
    :class:`DamagedError` for one with invalid content.
    """

    def __init__(self, url: str | Path) -> None:
        self.files: Files = Files(url)
        #: Damaged shards that :meth:`records` found, with the reasons.
        self.damaged: dict[str, str] = {}

    # Images.

    def add(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Write images of one layer as a shard, and return its name.

        The name is a hash of the keys, so that writing the same images again replaces the file.
        """
        rows = sorted(rows, key=lambda row: tuple(str(row[k]) for k in schema.KEY))
        digest = hashlib.blake2b(digest_size=8)
        for row in rows:
            digest.update("\0".join(str(row[k]) for k in schema.KEY).encode() + b"\n")
        name = f"pictures/{place(rows[0]['layer'])}/{digest.hexdigest()}.parquet"
        self._write(name, rows, schema.PICTURES, checked=True)
        return name

    def records(self, *, verify: bool = False) -> pa.Table:
        """Return the rows of all images without the large columns: ``LIGHT``, ``shard``, ``row``.

        With ``verify``, every shard is read completely and its checksums are compared. Damaged
        shards are skipped and listed in :attr:`damaged`.
        """
        self.damaged = {}
        shards = self.files.list("pictures", ".parquet")
        indexed = {} if verify else self._index()
        parts = []
        for name, size in shards.items():
            try:
                part = indexed.get((name, size))
                parts.append(self._read_records(name, size, verify) if part is None else part)
            except DamagedError as error:
                self.damaged[name] = str(error)
            except FileNotFoundError:  # another run has just renamed it
                continue
        return pa.concat_tables(parts).combine_chunks() if parts else RECORDS.empty_table()

    def dedupe(self, records: pa.Table) -> bool:
        """Remove duplicate images, as left by concurrent runs; return whether there were any.

        The remaining images of a shard are written before the shard is removed, so that no image
        is ever missing.
        """
        kept_rows: dict[str, list[int]] = {}
        seen: set[Key] = set()
        names, rows = records["shard"].to_pylist(), records["row"].to_pylist()
        for key, name, row in zip(keys_of(records), names, rows, strict=True):
            kept_rows.setdefault(name, [])
            if key not in seen:
                seen.add(key)
                kept_rows[name].append(row)
        counts: dict[str, int] = {}
        for name in names:
            counts[name] = counts.get(name, 0) + 1
        with_duplicates = [
            name for name, shard_rows in kept_rows.items() if len(shard_rows) < counts[name]
        ]
        rewritten = {
            self.add(self.pictures(name).take(kept_rows[name]).to_pylist())
            for name in with_duplicates
            if kept_rows[name]
        }
        for name in (
            set(with_duplicates) - rewritten
        ):  # the rest of one shard may equal another shard
            self.files.remove(name)
        return bool(with_duplicates)

    def reindex(self, records: pa.Table) -> None:
        """Write the index, which speeds up opening the atlas."""
        self.files.write(_INDEX, encode(records, RECORDS))

    def keys(self, records: pa.Table) -> set[Key]:
        """Return the keys of the images in ``records``."""
        return set(keys_of(records))

    def pictures(self, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a shard."""
        try:
            return self._read(shard, schema.PICTURES, columns)
        except FileNotFoundError:
            raise FeatvizError(f"{self.files.path(shard)!r} no longer exists") from None

    # Tables of a whole layer.

    def put(self, kind: str, layer: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the ``units`` or ``examples`` table of a layer."""
        self._write(table_name(kind, layer), list(rows), LAYER_TABLES[kind])

    def get(self, kind: str, layer: str) -> pa.Table:
        """Return the ``units`` or ``examples`` table of a layer, empty if there is none."""
        try:
            return self._read(table_name(kind, layer), LAYER_TABLES[kind], None)
        except FileNotFoundError:
            return LAYER_TABLES[kind].empty_table()

    @property
    def about(self) -> dict[str, Any]:
        """The network, its layers in order, and the settings by hash; empty for a new atlas."""
        text = self.files.read(ABOUT)
        if text is None:
            return {}
        try:
            return about.parse(text)
        except ValueError as error:
            raise DamagedError(
                f"{self.files.path(ABOUT)!r} is damaged ({shorten(str(error))}): remove it, and "
                "run the atlas again"
            ) from error

    @about.setter
    def about(self, value: Mapping[str, Any]) -> None:
        self.files.write(ABOUT, json.dumps(value, indent=1, ensure_ascii=False).encode())

    def _index(self) -> dict[tuple[str, int], pa.Table]:
        content = self.files.read(_INDEX)
        if content is None:
            return {}
        try:
            table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
            table = table.cast(RECORDS).combine_chunks()
        except (pa.ArrowException, ValueError, OSError):
            return {}  # it is only a cache: without it, every shard is read
        if not len(table):
            return {}
        keys = list(zip(table["shard"].to_pylist(), table["size"].to_pylist(), strict=True))
        starts = [i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]]
        ends = [*starts[1:], len(keys)]
        return {keys[a]: table.slice(a, b - a) for a, b in zip(starts, ends, strict=True)}

    def _read_records(self, name: str, size: int, verify: bool) -> pa.Table:
        table = self._read(name, schema.PICTURES, None if verify else LIGHT).select(LIGHT)
        count = len(table)
        return (
            table.append_column("shard", pa.array([name] * count))
            .append_column("size", pa.array([size] * count, pa.int64()))
            .append_column("row", pa.array(range(count), pa.int32()))
            .cast(RECORDS)
        )

    def _write(
        self,
        name: str,
        rows: Sequence[Mapping[str, Any]],
        table_schema: pa.Schema,
        *,
        checked: bool = False,
    ) -> None:
        table = pa.Table.from_pylist([dict(row) for row in rows], table_schema)
        content = encode(table, schema.with_features(table_schema))
        if checked:
            checksums.record(self.files, name, content)
        self.files.write(name, content)

    def _read(self, name: str, table_schema: pa.Schema, columns: Sequence[str] | None) -> pa.Table:
        selected = (
            table_schema if columns is None else pa.schema([table_schema.field(c) for c in columns])
        )
        path = self.files.path(name)
        try:
            with self.files.open(name) as opened:
                file: Any = opened
                if columns is None and table_schema is schema.PICTURES:
                    content = opened.read()
                    if not checksums.agrees(self.files, name, content):
                        raise DamagedError(f"{path!r} is damaged: its checksum differs")
                    file = pa.BufferReader(content)
                source = pq.ParquetFile(file, page_checksum_verification=True)
                table = source.read(columns=selected.names)
            for column in schema.LATER.intersection(selected.names).difference(table.column_names):
                nulls = pa.nulls(len(table), selected.field(column).type)
                table = table.append_column(column, nulls)
            return table.select(selected.names).replace_schema_metadata(None).cast(selected)
        except (FeatvizError, FileNotFoundError, MemoryError):
            raise
        except (pa.ArrowException, KeyError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:120]
            if isinstance(error, TimeoutError) or getattr(error, "errno", None) is not None:
                raise FeatvizError(
                    f"cannot read {path!r}: {reason}"
                ) from error  # an I/O error, not damage
            raise DamagedError(f"{path!r} is damaged: {reason}") from error
