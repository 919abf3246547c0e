"""Where the tables of an atlas are, how their rows are encoded, and what identifies an image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from featviz.atlases import schema
from featviz.atlases.remote_files import folder_of

#: The key of an image: the text of its objective, its seed and the hash of its settings.
Key: TypeAlias = tuple[str, int, str]
#: The columns in the index: all but the large ones.
LIGHT = tuple(
    name for name in schema.PICTURES.names if name not in ("image", "settings", "versions")
)
#: Tables of a whole layer.
LAYER_TABLES = {"units": schema.UNITS, "examples": schema.EXAMPLES}
#: A row of the index.
RECORDS = pa.schema(
    [
        *(schema.PICTURES.field(name) for name in LIGHT),
        pa.field("shard", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("row", pa.int32()),
    ]
)


def place(layer: str) -> str:
    """Return the name of a layer's folder, prefixed since many readers skip names with a ``_``."""
    return f"layer-{folder_of(layer)}"


def table_name(kind: str, layer: str) -> str:
    """Return the file name of the ``units`` or ``examples`` table of a layer."""
    return f"{kind}/{place(layer)}.parquet"


def keys_of(records: pa.Table) -> Iterable[Key]:
    """Return the keys of the images in ``records``, in order."""
    return zip(*(records[name].to_pylist() for name in schema.KEY), strict=True)


def encode(table: pa.Table, table_schema: pa.Schema) -> bytes:
    """Return a table as the content of a Parquet file, with checksums of its pages."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.cast(table_schema),
        sink,
        compression="zstd",
        write_page_checksum=True,
        write_statistics=True,
    )
    return sink.getvalue().to_pybytes()
