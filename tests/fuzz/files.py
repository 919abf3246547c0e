"""Files that strangers made: settings in PNGs, images, arrays, atlases, programs, checkpoints."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import featviz as fv
from featviz.atlases import schema
from featviz.io.images import SETTINGS_KEY
from tests.fuzz import network
from tests.fuzz.cases import BrokenPromiseError, Case, command

#: What a rendering of the fuzzed network would record.
RECORD = {
    "version": "1", "verb": "render", "model": "efficientnet_lite0", "goal": "class:1",
    "objective": ["class:1"], "seed": [0], "steps": 1, "steps_done": 1, "size": [8, 8],
    "param": "fourier", "transforms": "none", "optimizer": "adam", "lr": 0.05, "schedule": "constant",
    "redirect": 0, "precision": "fp32",
}  # fmt: skip
#: Values of settings that make no sense, whatever the key.
NONSENSE = [
    None, True, -1, 1.5, 10**20, 10**400, -1e308, "", "x" * 3000, "\0", [], {}, [[]], [None], {"a": []}, ["x"], [10**20],
    [-1], "sys:exit", "../x", "<script>", "9" * 5000, [0] * 1000, {"steps": 1},
]  # fmt: skip
#: Keys that nothing depends on, or for which one of the values above makes sense.
_FREE = {"version", "verb", "steps_done", "redirect", "seed", "goal", "objective"}


@st.composite
def settings(draw) -> Case:
    """Draw a PNG whose settings were changed, and render it again or check it."""
    record = dict(RECORD)
    key = draw(st.sampled_from(sorted(record)))
    value = draw(st.sampled_from(NONSENSE) | _json())
    remove = draw(st.booleans()) and draw(st.booleans())
    if remove:
        del record[key]
    else:
        record[key] = value
    text = draw(st.sampled_from([json.dumps, _twice, _nested]))(record)
    verb = draw(st.sampled_from(["render", "check"]))
    named = key == "model" or draw(st.booleans())
    sensible = False if text[:1] != "{" else None
    if not remove and not named and any(value is n for n in NONSENSE) and key not in _FREE:
        sensible = False

    def run(folder: Path) -> None:
        info = PngInfo()
        info.add_itxt(SETTINGS_KEY, text)
        Image.new("RGB", (8, 8)).save(folder / "a.png", pnginfo=info)
        model = ["tests.fuzz.network:make"] if named else []
        command([verb, *model, "--from", "a.png", "-o", "b.png"])

    return Case("settings", f"{verb} named={named} {key}={text[:300]}", sensible, run)


def _twice(record) -> str:
    return json.dumps(record)[:-1] + ', "steps": 1, "steps": 2}'


def _nested(record) -> str:
    return "[" * 2000 + json.dumps(record) + "]" * 2000


def _json() -> st.SearchStrategy:
    return st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=5,
    )


def mangled(content: st.SearchStrategy) -> st.SearchStrategy:
    """Draw bytes: flipped, cut, with a part repeated or overwritten."""

    def change(data: bytes, draws: list[tuple[int, int, int]]) -> bytes:
        out = bytearray(data)
        for how, place, byte in draws:
            at = place % max(1, len(out))
            if how == 0 and out:
                out[at] ^= 1 << byte % 8
            elif how == 1:
                out = out[:at]
            elif how == 2:
                out[at:at] = out[at : at + byte]
            elif how == 3:
                out[at : at + 4] = bytes([byte] * 4)
        return bytes(out)

    draws = st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2**20), st.integers(0, 255)),
        min_size=1,
        max_size=4,
    )
    return st.builds(change, content, draws)


def _encoded(suffix: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, Image.registered_extensions()[suffix])
    return buffer.getvalue()


_IMAGES = {
    suffix: _encoded(suffix)
    for suffix in (".png", ".jpg", ".gif", ".webp", ".tif", ".bmp", ".ppm", ".ico", ".tga")
}


@st.composite
def images(draw) -> Case:
    """Draw a damaged image file, for any verb that reads one."""
    suffix = draw(st.sampled_from(sorted(_IMAGES)))
    content = draw(mangled(st.just(_IMAGES[suffix])) | st.binary(max_size=200))
    verb = draw(st.sampled_from(["explain", "examples", "calibrate", "from", "mask"]))
    name = f"a{draw(st.sampled_from([suffix, '.png', '']))}"
    model = "tests.fuzz.network:make"
    words = {
        "explain": ["explain", model, name, "--method", "saliency", "-o", "o.png"],
        "examples": ["examples", model, name, "--objective", "class:0", "-o", "o.png"],
        "calibrate": ["calibrate", name, "--size", "8", "-o", "s.safetensors"],
        "from": ["render", model, "--from", name, "-o", "o.png"],
        "mask": [
            "dream",
            model,
            "rgb.png",
            "--mask",
            name,
            "--octaves",
            "1",
            "--steps",
            "1",
            "-o",
            "o.png",
        ],
    }[verb]

    def run(folder: Path) -> None:
        (folder / name).write_bytes(content)
        Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(folder / "rgb.png")
        command(words)

    return Case("image", f"{verb} {name} {content[:60]!r}… {hash(content)}", None, run)


def _array_bytes(array, suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == ".npy":
        np.save(buffer, array, allow_pickle=array.dtype == object)
        return buffer.getvalue()
    from safetensors.torch import save

    return save({"w": torch.from_numpy(np.ascontiguousarray(array, np.float32))})


@st.composite
def arrays(draw) -> Case:
    """Draw an array file of any shape and type, whole or damaged, as a direction."""
    suffix = draw(st.sampled_from([".npy", ".safetensors"]))
    shape = draw(
        st.sampled_from([(4,), (), (0,), (3,), (4, 1), (1, 4), (2, 4), (2, 2, 2), (4096,)])
    )
    dtype = draw(
        st.sampled_from(["f4", "f8", "i8", "u1", "?", "c16", "U3", "O", "M8[s]", "f2", "V4"])
    )
    value = draw(st.sampled_from([1.0, 0.0, float("nan"), float("inf"), 1e300]))
    plain = dtype[0] in "fiu" and suffix == ".npy"
    array = np.ones(shape, dtype) if dtype[0] not in "fc" else np.full(shape, value, dtype)
    if suffix == ".safetensors":
        array = np.full(shape, value if abs(value) < 1e30 else 1.0, np.float32)
    with np.errstate(all="ignore"):
        content = _array_bytes(array, suffix)
    damaged = draw(st.booleans())
    if damaged:
        content = draw(mangled(st.just(content)))
    selector = draw(
        st.sampled_from(
            ["", "", "", "#w", "#[0]", "#w[0]", "#nope", "#[99999999999999999999]", "#w[-1]", "#["]
        )
    )
    finite = (
        np.isfinite(array.astype(np.float64)).all() and array.any()
        if plain or suffix != ".npy"
        else None
    )
    sensible = None
    if not damaged and selector == "" and shape == (4,) and (plain or suffix != ".npy"):
        sensible = bool(finite) or None
        if not np.isfinite(array.astype(np.float64)).all():
            sensible = False
    elif (not damaged and selector == "" and shape in ((0,), (3,), (2, 2, 2), (4096,))) or (
        not damaged and dtype[0] in "UOMV" and suffix == ".npy"
    ):
        sensible = False

    def run(folder: Path) -> None:
        (folder / f"v{suffix}").write_bytes(content)
        goal = f'direction:first:"v{suffix}{selector}"'
        command(
            [
                "render",
                "tests.fuzz.network:make",
                goal,
                "--steps",
                "1",
                "--transforms",
                "none",
                "-o",
                "o.png",
            ]
        )

    return Case(
        "array",
        f"{suffix} {shape} {dtype} {value} {selector} damaged={damaged} {hash(content)}",
        sensible,
        run,
    )


#: Names in foreign atlases.
NAMES = ["../x", "../../etc/passwd", "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "a\u202egnp.exe", "", "\0", "x" * 5000,
         "/abs", "con", "a/b", "é", "💥", '"onload="alert(1)', "first", "..", ".", "%2e%2e", "\n", "layer-first", "</style>"]  # fmt: skip


@st.composite
def atlases(draw, stored: Path) -> Case:
    """Draw an atlas with damaged or foreign files; read, view and resume it."""
    action = draw(st.sampled_from(["read", "view", "resume"]))
    how = draw(st.sampled_from(["mangle", "foreign", "about", "column", "missing"]))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3))
    files = sorted(p.relative_to(stored) for p in stored.rglob("*") if p.is_file())
    chosen = draw(st.sampled_from(files))
    content = draw(mangled(st.just((stored / chosen).read_bytes())))
    unit = draw(st.sampled_from([0, 1, -1, 2**31 - 1]))
    value = draw(st.sampled_from(NONSENSE) | _json())
    key = draw(
        st.sampled_from(
            ["format", "model", "layers", "settings", "classes", "logits", "model_hash"]
        )
    )
    column = draw(st.sampled_from([f.name for f in schema.PICTURES]))
    picture = draw(st.sampled_from([b"", b"no png", _IMAGES[".png"], _IMAGES[".bmp"][:40]]))

    def run(folder: Path) -> None:
        target = folder / "place" / "atlas"
        shutil.copytree(stored, target)
        if how == "mangle":
            (target / chosen).write_bytes(content)
        elif how == "missing":
            (target / chosen).unlink()
        elif how == "about":
            about = json.loads((target / "atlas.json").read_text())
            (target / "atlas.json").write_text(json.dumps({**about, key: value}))
        else:
            _foreign(target, names, unit, column if how == "column" else None, picture)
        outside = _outside(folder, target)
        try:
            _use(action, target)
        finally:
            changed = _outside(folder, target) ^ outside
            if changed:
                raise BrokenPromiseError(f"wrote outside the atlas: {sorted(changed)}")

    detail = {
        "mangle": f"{chosen} {hash(content)}",
        "missing": str(chosen),
        "about": f"{key}={value!r:.200}",
    }
    text = detail.get(how, f"{names!r:.200} {unit} {column} {picture[:8]!r}")
    return Case("atlas", f"{action} {how} {text}", None, run)


def _outside(folder: Path, target: Path) -> set[str]:
    return {
        str(p)
        for p in folder.rglob("*")
        if target not in p.parents and p != target and p.name != "o.png"
    }


def _foreign(target: Path, names: list[str], unit: int, drop: str | None, picture: bytes) -> None:
    """Write a shard of rows with strange names, and one that lacks a column."""
    rows = [
        {"objective": name, "layer": name, "unit": unit, "sign": "+", "seed": 0, "settings_hash": "0" * 8,
         "image": {"bytes": picture, "path": name}, "score": float("nan"), "settings": name, "versions": "{", "model_hash": name}
        for name in names
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema.PICTURES)
    if drop is not None:
        table = table.drop_columns([drop])
    shard = next(iter(target.glob("pictures/*"))) / "000-foreign.parquet"
    pq.write_table(table, shard)


def _use(action: str, target: Path) -> None:
    if action == "view":
        command(["view", str(target), "--no-open", "-q"])
        for page in target.rglob("*.html"):
            text = page.read_text("utf-8", "replace")
            if "<script>alert" in text or '"onload=' in text:
                raise BrokenPromiseError(f"{page.name} carries a name as markup")
        return
    if action == "resume":
        fv.atlas(network.make(), "first", out=target, units="0:2", steps=1, transforms="none")
        return
    atlas = fv.Atlas(target)
    for layer in atlas.layers:
        for unit in atlas.units(layer)[:2]:
            atlas.of(layer, unit)
            image = atlas[layer, unit].image
            image.load()
        atlas.units_of(layer)
        atlas.examples_of(layer)


@st.composite
def programs(draw, program: bytes, checkpoint: bytes) -> Case:
    """Draw a damaged ``.pt2`` or checkpoint."""
    which = draw(st.sampled_from(["net.pt2", "run.pt"]))
    content = draw(
        mangled(st.just(program if which == "net.pt2" else checkpoint)) | st.binary(max_size=100)
    )

    def run(folder: Path) -> None:
        (folder / which).write_bytes(content)
        if which == "net.pt2":
            command(["layers", which])
        else:
            saved = fv.Checkpoint.load(folder / which)
            fv.optimize(network.make(), fv.class_logit(0), seeds=[0], steps=2, resume=saved)

    return Case("program", f"{which} {len(content)} {hash(content)}", None, run)


def stored_atlas(folder: Path) -> Path:
    """Write a small atlas, with its units' statistics and pages."""
    fv.atlas(
        network.make(), "first", out=folder, units="0:2", steps=1, transforms="none",
        images=list(torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))),
    )  # fmt: skip
    return folder


def program_and_checkpoint(folder: Path) -> tuple[bytes, bytes]:
    """Return a program of the network, and a checkpoint of a run."""
    program = fv.zoo.export(network.make(), folder / "whole.pt2").read_bytes()
    result = fv.optimize(network.make(), fv.class_logit(0), seeds=[0], steps=1)
    return program, result.checkpoint.save(folder / "whole.pt").read_bytes()
