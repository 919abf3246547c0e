"""``atlas.json``: the network that an atlas is of, and how its pictures were made."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from featviz.atlases.store import Key, Store
from featviz.errors import FeatvizError
from featviz.model import Model

FORMAT = 1


def update(
    store: Store, model: Model, layers: Collection[str], digest: str, settings: dict[str, Any]
) -> None:
    """Say of what network the pictures are, in which order its layers come, which settings."""
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
    store: Store, stored: Collection[Key], digest: str, settings: dict[str, Any], beside: bool
) -> None:
    """Raise :class:`FeatvizError` where a folder's pictures were made otherwise.

    With ``beside`` they may have been, but not of another network's weights.
    """
    about = store.about
    if about.get("format", FORMAT) != FORMAT:
        raise FeatvizError(
            f"{store.files.url!r} is an atlas of format {about['format']}, and this featviz "
            f"writes {FORMAT}: take the one that made it, or another folder"
        )
    hashes = sorted({key[2] for key in stored})
    if not hashes or digest in hashes:
        return
    other = about.get("settings", {}).get(hashes[0], {})
    changed = [
        f"{name} {json.dumps(other.get(name))} there, {json.dumps(settings.get(name))} here"
        for name in sorted({*other, *settings})
        if other.get(name) != settings.get(name)
    ]
    where = store.files.url
    if other and other.get("model_hash") != settings["model_hash"]:
        raise FeatvizError(
            f"{where!r} is the atlas of another network ({changed[0]}): take another folder"
        )
    if not beside:
        raise FeatvizError(
            f"{where!r} holds pictures made with other settings ({'; '.join(changed)}): "
            "use those, or take another folder, or keep both with beside"
        )
