"""The tables of an atlas, with one row per image, unit or dataset example.

They are plain Parquet. Images are structs of encoded bytes and a name, as the ``Image`` feature of
Hugging Face's ``datasets`` expects; settings are JSON strings.
"""

from __future__ import annotations

import json

import pyarrow as pa

#: An encoded image and its name.
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

#: The columns that identify an image.
KEY = ("objective", "seed", "settings_hash")

#: An image: its objective, its scores and how it was made.
PICTURES = pa.schema(
    [
        pa.field("objective", pa.string(), nullable=False),  # canonical text, including the sign
        pa.field("layer", pa.string(), nullable=False),
        pa.field("unit", pa.int32(), nullable=False),
        pa.field("sign", pa.string(), nullable=False),  # "+" or "-"
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("settings_hash", pa.string(), nullable=False),
        pa.field("image", IMAGE),
        pa.field("score", pa.float32()),  # of the finished image; null if it is not finite
        pa.field("score_held_out", pa.float32()),  # mean under held-out transforms
        pa.field("seconds", pa.float32()),  # its share of its batch's time
        pa.field("redirected", pa.bool_()),  # whether ReLU gradients were redirected
        pa.field("failure", pa.string()),  # why it could not be optimized, or null
        pa.field("settings", pa.string()),
        pa.field("versions", pa.string()),
        pa.field("model_hash", pa.string()),
    ]
)

#: A unit of a layer: statistics over a dataset, similar units, and what is stored when asked for.
UNITS = pa.schema(
    [
        pa.field("layer", pa.string(), nullable=False),
        pa.field("unit", pa.int32(), nullable=False),
        pa.field("objective", pa.string(), nullable=False),
        pa.field("images", pa.int64()),  # images in the statistics; null without a dataset
        pa.field("mean", pa.float32()),
        pa.field("std", pa.float32()),
        pa.field("quantiles", pa.list_(pa.float32())),  # 101: minimum, 1 %, … 99 %, maximum
        pa.field("similar", pa.list_(pa.int32())),  # most similar units of the layer first
        pa.field("similarity", pa.list_(pa.float32())),
        pa.field("similar_by", pa.string()),  # "activations" or "weights"
        pa.field("interpretability", pa.float32()),  # by its images; 0.5 is chance
        pa.field("interpretability_by", pa.string()),  # the judges, and how many images they saw
        pa.field("words", pa.list_(pa.string())),  # best first
        pa.field("word_scores", pa.list_(pa.float32())),
    ]
)
#: Columns that atlases of earlier versions lack; they are read as null.
LATER = frozenset({"interpretability", "interpretability_by", "words", "word_scores"})

#: A dataset image with one of the highest or lowest values of a unit.
EXAMPLES = pa.schema(
    [
        pa.field("layer", pa.string(), nullable=False),
        pa.field("unit", pa.int32(), nullable=False),
        pa.field("objective", pa.string(), nullable=False),
        pa.field("side", pa.string(), nullable=False),  # "top" or "bottom"
        pa.field("rank", pa.int32(), nullable=False),  # 0 is the highest, or the lowest
        pa.field("value", pa.float32()),
        pa.field("source", pa.string()),  # file name within the dataset
        pa.field("index", pa.int64()),  # position in the dataset
        pa.field("box", pa.list_(pa.int32())),  # top, left, bottom, right of the crop
        pa.field("image", IMAGE),  # the crop
    ]
)


def with_features(schema: pa.Schema) -> pa.Schema:
    """Return ``schema`` with the metadata that makes ``datasets`` decode its images."""
    features = {field.name: _feature(field.type) for field in schema}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _feature(data_type: pa.DataType) -> dict[str, object]:
    if data_type == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(data_type):
        return {"_type": "List", "feature": _feature(data_type.value_type)}
    return {"_type": "Value", "dtype": "float32" if data_type == pa.float32() else str(data_type)}
