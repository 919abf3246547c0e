"""Where pictures are kept: Parquet shards by layer, written once each, and an index of them."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from featviz.atlases import schema
from featviz.atlases.files import Files, folder_of
from featviz.errors import FeatvizError, FeatvizWarning

#: What tells one picture from another: its objective's text, its seed, the hash of its settings.
Key: TypeAlias = tuple[str, int, str]

_INDEX = "index.parquet"
_ABOUT = "atlas.json"
#: The columns that the index keeps of each picture: all but those that are large.
LIGHT = tuple(
    name for name in schema.PICTURES.names if name not in ("image", "settings", "versions")
)


class Store:
    """The files of an atlas.

    ``pictures/LAYER/*.parquet`` are the shards, ``units/`` and ``examples/`` have a file a layer,
    ``atlas.json`` describes the network. ``index.parquet`` only saves opening every shard: what it
    says is taken where a shard has the name and size that it knows, and read anew elsewhere.
    """

    def __init__(self, url: str | Path) -> None:
        self.files = Files(url)

    # Pictures.

    def add(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Write the pictures of one layer as a shard, and return its name.

        The name follows from the keys, so that writing the same pictures again replaces them.
        """
        layer = rows[0]["layer"]
        digest = hashlib.blake2b(digest_size=8)
        for row in sorted(tuple(str(row[k]) for k in schema.KEY) for row in rows):
            digest.update("\0".join(row).encode())
        name = f"pictures/{folder_of(layer)}/{digest.hexdigest()}.parquet"
        self._write(name, rows, schema.PICTURES)
        return name

    def records(self, *, verify: bool = False, mend: bool = False) -> pa.Table:
        """Return all of each picture but the picture: ``LIGHT``, with ``shard`` and ``row``.

        With ``verify`` every byte of every shard is read and its checksum compared. A shard that
        cannot be read is left out, with a warning: its pictures are as good as never made. With
        ``mend`` it is also renamed, so that others do not stumble over it.
        """
        shards = self.files.list("pictures", ".parquet")
        known = {} if verify else self._index()
        parts = []
        for name, size in shards.items():
            part = known.get((name, size))
            if part is None:
                part = self._look(name, size, verify, mend)
            if part is not None:
                parts.append(part)
        return pa.concat_tables(parts) if parts else _RECORDS.empty_table()

    def reindex(self, records: pa.Table) -> None:
        """Write the index, for the next time that the atlas is opened."""
        self.files.write(_INDEX, _encode(records, _RECORDS))

    def keys(self, records: pa.Table) -> set[Key]:
        """Return the keys of pictures."""
        columns = [records.column(name).to_pylist() for name in schema.KEY]
        return set(zip(*columns, strict=True))

    def pictures(self, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a shard's rows.

        Raises
        ------
        FeatvizError
            If it is missing or damaged.
        """
        return self._read(shard, schema.PICTURES, columns)

    # What belongs to a whole layer.

    def put(self, kind: str, layer: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the ``units`` or the ``examples`` of a layer."""
        self._write(f"{kind}/{folder_of(layer)}.parquet", list(rows), _KINDS[kind])

    def get(self, kind: str, layer: str) -> pa.Table:
        """Return the ``units`` or the ``examples`` of a layer; no rows where there are none."""
        name = f"{kind}/{folder_of(layer)}.parquet"
        if name not in self.files.list(kind, ".parquet"):
            return _KINDS[kind].empty_table()
        return self._read(name, _KINDS[kind], None)

    @property
    def about(self) -> dict[str, Any]:
        """The network, its layers in order, and settings by hash; empty for a new atlas."""
        text = self.files.read(_ABOUT)
        if text is None:
            return {}
        try:
            found = json.loads(text)
        except ValueError as error:
            raise FeatvizError(f"{self.files.path(_ABOUT)!r} is damaged: {error}") from error
        if not isinstance(found, dict):
            raise FeatvizError(f"{self.files.path(_ABOUT)!r} is damaged: not an object")
        return found

    @about.setter
    def about(self, value: Mapping[str, Any]) -> None:
        self.files.write(_ABOUT, json.dumps(value, indent=1, ensure_ascii=False).encode())

    def _index(self) -> dict[tuple[str, int], pa.Table]:
        content = self.files.read(_INDEX)
        if content is None:
            return {}
        try:
            table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
            table = table.cast(_RECORDS)
        except (pa.ArrowException, ValueError, OSError):
            return {}  # it is derived: without it every shard is read
        keys = table.select(["shard", "size"]).to_pylist()
        starts = [i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]]
        ends = [*starts[1:], len(keys)]
        return {
            (keys[a]["shard"], keys[a]["size"]): table.slice(a, b - a)
            for a, b in zip(starts, ends, strict=True)
        }

    def _look(self, name: str, size: int, verify: bool, mend: bool) -> pa.Table | None:
        try:
            table = self._read(name, schema.PICTURES, None if verify else LIGHT).select(LIGHT)
        except FeatvizError as error:
            done = f"it is now {self.files.set_aside(name)!r}" if mend else "it is left out"
            warnings.warn(f"{error}; {done}", FeatvizWarning, stacklevel=4)
            return None
        count = len(table)
        return (
            table.append_column("shard", pa.array([name] * count))
            .append_column("size", pa.array([size] * count, pa.int64()))
            .append_column("row", pa.array(range(count), pa.int32()))
            .cast(_RECORDS)
        )

    def _write(self, name: str, rows: Sequence[Mapping[str, Any]], kind: pa.Schema) -> None:
        table = pa.Table.from_pylist([dict(row) for row in rows], kind)
        self.files.write(name, _encode(table, schema.with_features(kind)))

    def _read(self, name: str, kind: pa.Schema, columns: Sequence[str] | None) -> pa.Table:
        chosen = kind if columns is None else pa.schema([kind.field(c) for c in columns])
        try:
            with self.files.open(name) as file:
                table = pq.read_table(file, columns=chosen.names, page_checksum_verification=True)
            return table.select(chosen.names).replace_schema_metadata(None).cast(chosen)
        except FileNotFoundError:
            raise FeatvizError(f"{self.files.path(name)!r} is gone") from None
        except (pa.ArrowException, KeyError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:120]
            raise FeatvizError(f"{self.files.path(name)!r} is damaged: {reason}") from error


_KINDS = {"units": schema.UNITS, "examples": schema.EXAMPLES}
_RECORDS = pa.schema(
    [
        *(schema.PICTURES.field(name) for name in LIGHT),
        pa.field("shard", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("row", pa.int32()),
    ]
)


def first_of_each(records: pa.Table) -> pa.Table:
    """Return ``records`` with one row a key, whatever shards two writers may have left."""
    numbered = records.append_column("_row", pa.array(range(len(records)), pa.int64()))
    rows = numbered.group_by(list(schema.KEY)).aggregate([("_row", "min")])["_row_min"]
    if len(rows) == len(records):
        return records
    return records.take(sorted(rows.to_pylist()))


def _encode(table: pa.Table, kind: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.cast(kind), sink, compression="zstd", write_page_checksum=True, write_statistics=True
    )
    return sink.getvalue().to_pybytes()
