"""Where images are kept: Parquet shards by layer, written once each, and an index of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from featviz.atlases import schema
from featviz.atlases.remote_files import Files, folder_of
from featviz.errors import FeatvizError

#: What tells one image from another: its objective's text, its seed, the hash of its settings.
Key: TypeAlias = tuple[str, int, str]

_INDEX = "index.parquet"
ABOUT = "atlas.json"
#: The columns that the index keeps of each image: all but those that are large.
LIGHT = tuple(
    name for name in schema.PICTURES.names if name not in ("image", "settings", "versions")
)


class DamagedError(FeatvizError):
    """A file of an atlas does not hold what it should."""


class Store:
    """The files of an atlas.

    ``pictures/layer-…/*.parquet`` are the shards, ``units/`` and ``examples/`` have a file a layer,
    ``atlas.json`` describes the network. ``index.parquet`` only saves opening every shard: what it
    says is taken where a shard has the name and size that it knows, and read anew elsewhere.

    Every method raises :class:`FeatvizError` for a file that cannot be read or written, and
    :class:`DamagedError` for one that does not hold what it should.
    """

    def __init__(self, url: str | Path) -> None:
        self.files = Files(url)
        #: Shards that :meth:`records` could not make sense of, and why.
        self.damaged: dict[str, str] = {}

    # Pictures.

    def add(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Write the images of one layer as a shard, and return its name.

        The name follows from the keys, so that writing the same images again replaces them.
        """
        rows = sorted(rows, key=lambda row: tuple(str(row[k]) for k in schema.KEY))
        digest = hashlib.blake2b(digest_size=8)
        for row in rows:
            digest.update("\0".join(str(row[k]) for k in schema.KEY).encode() + b"\n")
        name = f"pictures/{place(rows[0]['layer'])}/{digest.hexdigest()}.parquet"
        self._write(name, rows, schema.PICTURES)
        return name

    def records(self, *, verify: bool = False) -> pa.Table:
        """Return all of each image but the image: ``LIGHT``, with ``shard`` and ``row``.

        With ``verify`` every byte of every shard is read and its checksum compared. A damaged shard
        is left out, and noted in :attr:`damaged`.
        """
        self.damaged = {}
        shards = self.files.list("pictures", ".parquet")
        known = {} if verify else self._index()
        parts = []
        for name, size in shards.items():
            try:
                part = known.get((name, size))
                parts.append(self._look(name, size, verify) if part is None else part)
            except DamagedError as error:
                self.damaged[name] = str(error)
            except FileNotFoundError:  # another run has just set it aside
                continue
        return pa.concat_tables(parts).combine_chunks() if parts else _RECORDS.empty_table()

    def dedupe(self, records: pa.Table) -> bool:
        """Make doubled images single, which two runs at once may leave; tell whether there were.

        What stays of a shard is written before the shard goes: no image is ever missing.
        """
        kept: dict[str, list[int]] = {}
        seen: set[Key] = set()
        names, rows = records["shard"].to_pylist(), records["row"].to_pylist()
        for key, name, row in zip(_keys(records), names, rows, strict=True):
            kept.setdefault(name, [])
            if key not in seen:
                seen.add(key)
                kept[name].append(row)
        counts: dict[str, int] = {}
        for name in names:
            counts[name] = counts.get(name, 0) + 1
        doubled = [name for name, there in kept.items() if len(there) < counts[name]]
        written = {
            self.add(self.pictures(name).take(kept[name]).to_pylist())
            for name in doubled
            if kept[name]
        }
        for name in set(doubled) - written:  # what is left of one may be all of another
            self.files.remove(name)
        return bool(doubled)

    def reindex(self, records: pa.Table) -> None:
        """Write the index, for the next time that the atlas is opened."""
        self.files.write(_INDEX, _encode(records, _RECORDS))

    def keys(self, records: pa.Table) -> set[Key]:
        """Return the keys of pictures."""
        return set(_keys(records))

    def pictures(self, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a shard's rows."""
        try:
            return self._read(shard, schema.PICTURES, columns)
        except FileNotFoundError:
            raise FeatvizError(f"{self.files.path(shard)!r} is gone") from None

    # What belongs to a whole layer.

    def put(self, kind: str, layer: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the ``units`` or the ``examples`` of a layer."""
        self._write(table_name(kind, layer), list(rows), _KINDS[kind])

    def get(self, kind: str, layer: str) -> pa.Table:
        """Return the ``units`` or the ``examples`` of a layer; no rows where there are none."""
        try:
            return self._read(table_name(kind, layer), _KINDS[kind], None)
        except FileNotFoundError:
            return _KINDS[kind].empty_table()

    @property
    def about(self) -> dict[str, Any]:
        """The network, its layers in order, and settings by hash; empty for a new atlas."""
        text = self.files.read(ABOUT)
        if text is None:
            return {}
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise DamagedError(
                f"{self.files.path(ABOUT)!r} is damaged: remove it, and run the atlas again"
            )
        return found

    @about.setter
    def about(self, value: Mapping[str, Any]) -> None:
        self.files.write(ABOUT, json.dumps(value, indent=1, ensure_ascii=False).encode())

    def _index(self) -> dict[tuple[str, int], pa.Table]:
        content = self.files.read(_INDEX)
        if content is None:
            return {}
        try:
            table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
            table = table.cast(_RECORDS).combine_chunks()
        except (pa.ArrowException, ValueError, OSError):
            return {}  # it is derived: without it every shard is read
        keys = list(zip(table["shard"].to_pylist(), table["size"].to_pylist(), strict=True))
        starts = [i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]]
        ends = [*starts[1:], len(keys)]
        return {keys[a]: table.slice(a, b - a) for a, b in zip(starts, ends, strict=True)}

    def _look(self, name: str, size: int, verify: bool) -> pa.Table:
        table = self._read(name, schema.PICTURES, None if verify else LIGHT).select(LIGHT)
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
        path = self.files.path(name)
        try:
            with self.files.open(name) as file:
                table = pq.read_table(file, columns=chosen.names, page_checksum_verification=True)
            return table.select(chosen.names).replace_schema_metadata(None).cast(chosen)
        except (FeatvizError, FileNotFoundError, MemoryError):
            raise
        except (pa.ArrowException, KeyError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:120]
            if isinstance(error, TimeoutError) or getattr(error, "errno", None) is not None:
                raise FeatvizError(f"cannot read {path!r}: {reason}") from error  # not its fault
            raise DamagedError(f"{path!r} is damaged: {reason}") from error


_KINDS = {"units": schema.UNITS, "examples": schema.EXAMPLES}
_RECORDS = pa.schema(
    [
        *(schema.PICTURES.field(name) for name in LIGHT),
        pa.field("shard", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("row", pa.int32()),
    ]
)


def place(layer: str) -> str:
    """Return the name of a layer's tables: many readers skip names that start with ``_``."""
    return f"layer-{folder_of(layer)}"


def table_name(kind: str, layer: str) -> str:
    """Return the name of the file with the ``units`` or the ``examples`` of a layer."""
    return f"{kind}/{place(layer)}.parquet"


def _keys(records: pa.Table) -> Iterable[Key]:
    return zip(*(records[name].to_pylist() for name in schema.KEY), strict=True)


def _encode(table: pa.Table, kind: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.cast(kind), sink, compression="zstd", write_page_checksum=True, write_statistics=True
    )
    return sink.getvalue().to_pybytes()
