"""``atlas.json``: the network that an atlas is of, and how its images were made."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pyarrow as pa

from featviz.atlases.store import Store
from featviz.errors import FeatvizError
from featviz.networks.model import Model

FORMAT = 2


def check_format(store: Store) -> None:
    """Raise :class:`FeatvizError` for an atlas that another featviz has to read."""
    found = store.about.get("format", FORMAT)
    if found != FORMAT:
        raise FeatvizError(
            f"{store.files.url!r} is an atlas of format {found}, and this featviz knows {FORMAT}: "
            "take the one that made it, or another folder"
        )


def update(
    store: Store, model: Model, layers: Collection[str], digest: str, settings: dict[str, Any]
) -> None:
    """Say of what network the images are, in which order its layers come, which settings."""
    before = store.about
    known = {layer["name"] for layer in before.get("layers", ())} | set(layers)
    after = {
        **before,
        "format": FORMAT,
        "model": model.name,
        "model_hash": settings["model_hash"],
        "classes": None if model.classes is None else list(model.classes),
        "logits": model.logits,
        "layers": [
            {"name": info.name, "type": info.type, "shape": list(info.shape), "units": info.units}
            for info in model.layers()
            if info.name in known
        ],
        "settings": {**before.get("settings", {}), digest: settings},
    }
    if after != before:
        store.about = after


def agree(
    store: Store, records: pa.Table, digest: str, settings: dict[str, Any], beside: bool
) -> None:
    """Raise :class:`FeatvizError` where a folder's images were made otherwise.

    With ``beside`` they may have been, but not of another network.
    """
    about, where = store.about, store.files.url
    if store.damaged and not about:
        raise FeatvizError(
            f"{where!r} holds files that are no images of an atlas "
            f"({next(iter(store.damaged))!r}): take another folder"
        )
    if set(records["model_hash"].unique().to_pylist()) - {settings["model_hash"]}:
        raise FeatvizError(f"{where!r} is the atlas of another network: take another folder")
    hashes = records["settings_hash"].unique().to_pylist()
    if beside or not hashes or digest in hashes:
        return
    other = about.get("settings", {}).get(hashes[0], {})
    changed = [
        f"{name} {json.dumps(other.get(name))} there, {json.dumps(settings.get(name))} here"
        for name in sorted({*other, *settings})
        if other.get(name) != settings.get(name)
    ]
    raise FeatvizError(
        f"{where!r} holds images made with other settings ({'; '.join(changed)}): "
        "use those, or take another folder, or keep both with beside"
    )
