"""``atlas.json``: the network of an atlas, and the settings of its images."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pyarrow as pa

from featviz.atlases.store import Store
from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.optim.upgrade import upgraded

FORMAT = 2


def check_format(store: Store) -> None:
    """Raise :class:`FeatvizError` if the atlas has a format that this version cannot read."""
    version = store.about.get("format", FORMAT)
    if version != FORMAT:
        raise FeatvizError(
            f"{store.files.url!r} is an atlas of format {version}, but this version of featviz "
            f"reads format {FORMAT}: use the version that made it, or another folder"
        )


def update(
    store: Store, model: Model, layers: Collection[str], digest: str, settings: dict[str, Any]
) -> None:
    """Store the network, its layers in order, and the settings by their hash."""
    before = store.about
    layer_names = {layer["name"] for layer in before.get("layers", ())} | set(layers)
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
            if info.name in layer_names
        ],
        "settings": {**before.get("settings", {}), digest: settings},
    }
    if after != before:
        store.about = after


def agree(
    store: Store, records: pa.Table, digest: str, settings: dict[str, Any], beside: bool
) -> None:
    """Raise :class:`FeatvizError` if stored images have another network or other settings.

    With ``beside``, other settings are allowed, but not another network.
    """
    about, url = store.about, store.files.url
    if store.damaged and not about:
        raise FeatvizError(
            f"{url!r} contains files that are not from an atlas "
            f"({next(iter(store.damaged))!r}): use another folder"
        )
    if set(records["model_hash"].unique().to_pylist()) - {settings["model_hash"]}:
        raise FeatvizError(f"{url!r} is the atlas of another network: use another folder")
    hashes = records["settings_hash"].unique().to_pylist()
    if beside or not hashes or digest in hashes:
        return
    stored = upgraded(about.get("settings", {}).get(hashes[0], {}))
    changed = [
        f"{name} {json.dumps(stored.get(name))} there, {json.dumps(settings.get(name))} here"
        for name in sorted({*stored, *settings})
        if stored.get(name) != settings.get(name)
    ]
    raise FeatvizError(
        f"{url!r} contains images made with other settings ({'; '.join(changed)}): "
        "use those, or another folder, or keep both with beside"
    )
