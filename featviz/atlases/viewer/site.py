"""``featviz view``: the files of the site, and which of them are still right."""

from __future__ import annotations

import hashlib
import html
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa

from featviz.atlases.reader import Atlas
from featviz.atlases.remote_files import folder_of
from featviz.atlases.store import Store, table_name
from featviz.atlases.viewer.code import pieces
from featviz.atlases.viewer.data import script
from featviz.atlases.viewer.layer import Layer

#: Counts up when the files of a layer change their meaning, so that old ones are made anew.
FORMAT = 1
#: The scripts of the pages, in the order in which they need each other.
SCRIPTS = ("core", "search", "plots", "grid", "overview", "unit", "keys", "start")
_STYLE = "style"


def view(url: str | Path, *, progress: bool = False) -> str:
    """Write the pages that show an atlas into it, and return where they start.

    ``index.html`` and ``site/`` work from a folder, opened as a file, and from any host of static
    files. Layers whose images, units and examples are those of the last time are left as they
    are.

    Parameters
    ----------
    url
        The atlas: a folder, or a URL that fsspec knows.
    progress
        Show a progress bar.

    Returns
    -------
    str
        The path of ``index.html``; its URL where the atlas is no folder.

    Raises
    ------
    FeatvizError
        If there is no atlas, it is damaged, or the pages cannot be written into it.
    """
    atlas = Atlas(url)
    _build(atlas, progress)
    files = atlas.store.files
    return files.path("index.html") if files.local else f"{files.url.rstrip('/')}/index.html"


def _build(atlas: Atlas, progress: bool) -> None:
    from tqdm.auto import tqdm

    store = atlas.store
    present = store.files.list("site", "")
    sources = {kind: store.files.list(kind, ".parquet") for kind in ("units", "examples")}
    kept: set[str] = set()
    about = _about(atlas)
    layers, settings = [], {}
    bar = tqdm(total=len(atlas), unit="pictures", disable=not progress, leave=False)
    with bar, ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 1))) as pool:
        for name in atlas.layers:
            records = atlas.records.filter(pa.compute.field("layer") == name)
            layer = Layer(store, name, records, pool, lambda: None)
            version = _version(name, records, sources)
            summary = _known(store, layer.folder, version, present)
            if summary is None:
                layer.tick = bar.update
                summary = layer.build(version)
                kept |= layer.written
                note = json.dumps({"version": version, "summary": summary})
                store.files.write(f"{layer.folder}/built.json", note.encode())
            else:
                bar.update(len(records))
                kept |= {path for path in present if path.startswith(f"{layer.folder}/")}
            kept.add(f"{layer.folder}/built.json")
            settings.update(summary["settings"])
            shown = {k: summary[k] for k in ("units", "strip", "signs")}
            layers.append(
                {**_described(about, name), "folder": folder_of(name), "version": version, **shown}
            )
    network = about["network"] or next(
        (s["model"] for s in map(_object, settings.values()) if isinstance(s.get("model"), str)),
        "Atlas",
    )
    document = {
        "network": network,
        "layers": layers,
        "classes": about["classes"],
        "logits": about["logits"],
        "settings": [_settings(digest, text) for digest, text in settings.items()],
    }
    kept |= _shell(store, network, script("site/atlas", document))
    for path in set(present) - kept:  # of images and layers that are gone
        store.files.system.rm_file(store.files.path(path))


def _shell(store: Store, network: str, data: bytes) -> set[str]:
    """Write what does not depend on a layer; the page itself last, when all it names is there."""
    folder = resources.files("featviz.atlases.viewer").joinpath("static")
    assets = {f"{_STYLE}.css": folder.joinpath(f"{_STYLE}.css").read_bytes()}
    assets |= {f"{name}.js": folder.joinpath(f"{name}.js").read_bytes() for name in SCRIPTS}
    files = {f"site/app/{name}": content for name, content in assets.items()}
    files["site/atlas.js"] = data
    for path, content in files.items():
        store.files.write(path, content)
    tag = {p: hashlib.blake2b(content, digest_size=6).hexdigest() for p, content in files.items()}
    own = [f"site/app/{name}.js" for name in SCRIPTS[:-1]]
    order = [*own, "site/atlas.js", "site/app/start.js"]
    scripts = "\n".join(f'<script src="{path}?{tag[path]}" defer></script>' for path in order)
    page = folder.joinpath("index.html").read_text("utf-8")
    style = f"site/app/{_STYLE}.css"
    page = page.replace("{style}", f"{style}?{tag[style]}").replace("{scripts}", scripts)
    store.files.write("index.html", page.replace("{title}", html.escape(network)).encode())
    return set(files)


def _version(name: str, records: pa.Table, sources: Mapping[str, Mapping[str, int]]) -> str:
    """Return what changes when the images of a layer do."""
    shards = sorted(
        set(zip(records["shard"].to_pylist(), records["size"].to_pylist(), strict=True))
    )
    others = [files.get(table_name(kind, name)) for kind, files in sources.items()]
    text = json.dumps([FORMAT, name, shards, len(records), others])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _known(
    store: Store, folder: str, version: str, present: Mapping[str, int]
) -> dict[str, Any] | None:
    """Return what an earlier run knew about a layer, if its files are there and still right."""
    path = f"{folder}/built.json"
    if path not in present:
        return None
    found = _object(store.files.read(path) or b"")
    summary = found.get("summary")
    if found.get("version") != version or not isinstance(summary, dict):
        return None
    count = sum(other.startswith(f"{folder}/") for other in present) - 1
    return summary if count == summary.get("files") else None


def _about(atlas: Atlas) -> dict[str, Any]:
    """Return what the atlas says about the network, in one form whoever wrote it."""
    about = atlas.about
    model = about.get("model", about.get("network"))
    if isinstance(model, dict):
        model = model.get("name")
    classes = about.get("classes")
    classes = [str(name) for name in classes] if isinstance(classes, list) else []
    layers = [{"name": x} if isinstance(x, str) else x for x in about.get("layers", ())]
    # The output has the logits, and so has the module that computed them: a vector as long.
    logits = {about.get("logits")} | {
        layer["name"] for layer in layers if classes and layer.get("shape") == [len(classes)]
    }
    return {
        "network": model if isinstance(model, str) else None,
        "classes": classes,
        "logits": sorted(name for name in logits if isinstance(name, str)),
        "layers": {layer["name"]: layer for layer in layers},
    }


def _described(about: Mapping[str, Any], name: str) -> dict[str, Any]:
    known = about["layers"].get(name, {})
    return {"name": name, **{k: known.get(k) for k in ("type", "shape")}, "of": known.get("units")}


def _settings(digest: str, text: str) -> dict[str, Any]:
    record = _object(text)
    shown = [[str(k), v if isinstance(v, str) else json.dumps(v)] for k, v in record.items()]
    return {"hash": digest, "list": shown, "code": pieces(record)}


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
