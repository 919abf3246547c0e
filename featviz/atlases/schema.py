"""The tables of an atlas: one row an image, a unit, an example.

Plain Parquet, so that anything reads it: images are structs of encoded bytes and a name, which is
what the ``Image`` feature of Hugging Face's ``datasets`` expects; settings are JSON texts.
"""

from __future__ import annotations

import json

import pyarrow as pa

#: An encoded image, and a name for it.
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

#: What tells one image from another.
KEY = ("objective", "seed", "settings_hash")

#: An image: what it shows, how it scores, how it came about.
PICTURES = pa.schema(
    [
        pa.field("objective", pa.string(), nullable=False),  # canonical text, the sign included
        pa.field("layer", pa.string(), nullable=False),
        pa.field("unit", pa.int32(), nullable=False),
        pa.field("sign", pa.string(), nullable=False),  # "+" or "-"
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("settings_hash", pa.string(), nullable=False),
        pa.field("image", IMAGE),
        pa.field("score", pa.float32()),  # of the finished image; null where it is not finite
        pa.field("score_held_out", pa.float32()),  # mean under transforms that no step has seen
        pa.field("seconds", pa.float32()),  # its share of its batch's time
        pa.field("redirected", pa.bool_()),  # whether a dead ReLU was opened at first
        pa.field("failure", pa.string()),  # why it is not what was asked for, or null
        pa.field("settings", pa.string()),
        pa.field("versions", pa.string()),
        pa.field("model_hash", pa.string()),
    ]
)

#: A unit of a layer, over a dataset or by its weights alone.
UNITS = pa.schema(
    [
        pa.field("layer", pa.string(), nullable=False),
        pa.field("unit", pa.int32(), nullable=False),
        pa.field("objective", pa.string(), nullable=False),
        pa.field("images", pa.int64()),  # how many were looked at; null without a dataset
        pa.field("mean", pa.float32()),
        pa.field("std", pa.float32()),
        pa.field("quantiles", pa.list_(pa.float32())),  # 101: least, 1 %, … 99 %, largest
        pa.field("similar", pa.list_(pa.int32())),  # most similar units of the layer, best first
        pa.field("similarity", pa.list_(pa.float32())),
        pa.field("similar_by", pa.string()),  # "activations" or "weights"
    ]
)

#: One image of a dataset that a unit likes much or least.
EXAMPLES = pa.schema(
    [
        pa.field("layer", pa.string(), nullable=False),
        pa.field("unit", pa.int32(), nullable=False),
        pa.field("objective", pa.string(), nullable=False),
        pa.field("side", pa.string(), nullable=False),  # "top" or "bottom"
        pa.field("rank", pa.int32(), nullable=False),  # 0 is the highest, or the lowest
        pa.field("value", pa.float32()),
        pa.field("source", pa.string()),  # the file's name within the dataset
        pa.field("index", pa.int64()),  # its position in the dataset
        pa.field("box", pa.list_(pa.int32())),  # top, left, bottom, right of what is shown
        pa.field("image", IMAGE),  # that part of the image
    ]
)


def with_features(schema: pa.Schema) -> pa.Schema:
    """Return ``schema`` with the note by which ``datasets`` decodes its images."""
    features = {field.name: _feature(field.type) for field in schema}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _feature(kind: pa.DataType) -> dict[str, object]:
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"_type": "List", "feature": _feature(kind.value_type)}
    return {"_type": "Value", "dtype": "float32" if kind == pa.float32() else str(kind)}
