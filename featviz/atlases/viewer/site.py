"""``featviz view``: write the files of the site that are not up to date."""

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

from featviz.atlases.layout import table_name
from featviz.atlases.reader import Atlas
from featviz.atlases.remote_files import folder_of
from featviz.atlases.store import Store
from featviz.atlases.viewer.code import pieces
from featviz.atlases.viewer.data import script
from featviz.atlases.viewer.layer import LayerPages
from featviz.bars import tqdm

#: Version of the layer files; increment it to have old files written again.
FORMAT = 2
#: The scripts of the pages, in the order of their dependencies.
SCRIPTS = ("core", "search", "plots", "grid", "overview", "unit", "keys", "start")
_STYLE = "style"


def view(url: str | Path, *, progress: bool | None = None) -> str:
    """Write pages for browsing an atlas into its folder, and return the path of the start page.

    ``index.html`` and ``site/`` can be opened from a folder or served by any static file host.
    Layers whose images, units and examples have not changed are not written again.

    Parameters
    ----------
    url
        The atlas: a folder, or any URL that fsspec supports.
    progress
        Show a progress bar; None, the default: in interactive sessions and notebooks.

    Returns
    -------
    str
        The path of ``index.html``, or its URL if the atlas is not a local folder.

    Raises
    ------
    FeatvizError
        If there is no atlas, it is damaged, or the pages cannot be written.
    """
    atlas = Atlas(url)
    _build(atlas, progress)
    files = atlas.store.files
    return files.path("index.html") if files.local else f"{files.url.rstrip('/')}/index.html"


def _build(atlas: Atlas, progress: bool | None) -> None:
    store = atlas.store
    existing = store.files.list("site", "")
    sources = {kind: store.files.list(kind, ".parquet") for kind in ("units", "examples")}
    current_files: set[str] = set()
    about = _about(atlas)
    layers, settings = [], {}
    bar = tqdm(total=len(atlas), unit="images", progress=progress, leave=False)
    with bar, ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 1))) as executor:
        for name in atlas.layers:
            records = atlas.records.filter(pa.compute.field("layer") == name)
            layer = LayerPages(store, name, records, executor, lambda: None)
            fingerprint = _fingerprint(name, records, sources)
            summary = _up_to_date_summary(store, layer.folder, fingerprint, existing)
            if summary is None:
                layer.tick = bar.update
                summary = layer.build(fingerprint)
                current_files |= layer.written
                built = json.dumps({"version": fingerprint, "summary": summary})
                store.files.write(f"{layer.folder}/built.json", built.encode())
            else:
                bar.update(len(records))
                current_files |= {path for path in existing if path.startswith(f"{layer.folder}/")}
            current_files.add(f"{layer.folder}/built.json")
            settings.update(summary["settings"])
            overview = {k: summary[k] for k in ("units", "strip", "signs", "words")}
            layers.append(
                {
                    **_described(about, name),
                    "folder": folder_of(name),
                    "version": fingerprint,
                    **overview,
                }
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
    current_files |= _write_app(store, network, script("site/atlas", document))
    for path in set(existing) - current_files:  # of images and layers that no longer exist
        store.files.system.rm_file(store.files.path(path))


def _write_app(store: Store, network: str, data: bytes) -> set[str]:
    """Write the files that do not depend on a layer, the page itself last."""
    folder = resources.files("featviz.atlases.viewer").joinpath("static")
    assets = {f"{_STYLE}.css": folder.joinpath(f"{_STYLE}.css").read_bytes()}
    assets |= {f"{name}.js": folder.joinpath(f"{name}.js").read_bytes() for name in SCRIPTS}
    files = {f"site/app/{name}": content for name, content in assets.items()}
    files["site/atlas.js"] = data
    for path, content in files.items():
        store.files.write(path, content)
    hashes = {
        path: hashlib.blake2b(content, digest_size=6).hexdigest() for path, content in files.items()
    }
    app_scripts = [f"site/app/{name}.js" for name in SCRIPTS[:-1]]
    order = [*app_scripts, "site/atlas.js", "site/app/start.js"]
    scripts = "\n".join(f'<script src="{path}?{hashes[path]}" defer></script>' for path in order)
    page = folder.joinpath("index.html").read_text("utf-8")
    style = f"site/app/{_STYLE}.css"
    page = page.replace("{style}", f"{style}?{hashes[style]}").replace("{scripts}", scripts)
    store.files.write("index.html", page.replace("{title}", html.escape(network)).encode())
    return set(files)


def _fingerprint(name: str, records: pa.Table, sources: Mapping[str, Mapping[str, int]]) -> str:
    """Return a hash that changes whenever the images of a layer do."""
    shards = sorted(
        set(zip(records["shard"].to_pylist(), records["size"].to_pylist(), strict=True))
    )
    table_sizes = [files.get(table_name(kind, name)) for kind, files in sources.items()]
    text = json.dumps([FORMAT, name, shards, len(records), table_sizes])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _up_to_date_summary(
    store: Store, folder: str, fingerprint: str, existing: Mapping[str, int]
) -> dict[str, Any] | None:
    """Return the summary of a layer from an earlier run, or None if its files are outdated."""
    path = f"{folder}/built.json"
    if path not in existing:
        return None
    built = _object(store.files.read(path) or b"")
    summary = built.get("summary")
    if built.get("version") != fingerprint or not isinstance(summary, dict):
        return None
    count = sum(other.startswith(f"{folder}/") for other in existing) - 1
    return summary if count == summary.get("files") else None


def _about(atlas: Atlas) -> dict[str, Any]:
    """Return the metadata of the network in one form, whichever version wrote it."""
    about = atlas.about
    model = about.get("model", about.get("network"))
    if isinstance(model, dict):
        model = model.get("name")
    classes = about.get("classes")
    classes = [str(name) for name in classes] if isinstance(classes, list) else []
    layers = [{"name": x} if isinstance(x, str) else x for x in about.get("layers", ())]
    # The logits are the output, and also the output of the module that computed them.
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
    info = about["layers"].get(name, {})
    return {"name": name, **{k: info.get(k) for k in ("type", "shape")}, "of": info.get("units")}


def _settings(digest: str, text: str) -> dict[str, Any]:
    record = _object(text)
    entries = [[str(k), v if isinstance(v, str) else json.dumps(v)] for k, v in record.items()]
    return {"hash": digest, "list": entries, "code": pieces(record)}


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
