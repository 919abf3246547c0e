"""What strangers' files may do: nothing but be read, within bounds, or be refused in one line."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import zlib

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image

import featviz as fv
from featviz.cli.main import main
from featviz.errors import FeatvizError, shorten
from featviz.io import images
from featviz.objectives import arrays
from featviz.objectives.parsing import MAX_LENGTH, parse
from featviz.optim.stored_run import StoredRun
from featviz.validation import LARGEST, MOST
from tests import nets
from tests.fuzz import network

RECORD = {
    "version": "1", "verb": "render", "model": "efficientnet_lite0", "goal": "class:1",
    "objective": ["class:1"], "seed": [0], "steps": 4, "steps_done": 4, "size": [32, 32],
    "param": "fourier", "transforms": "none", "optimizer": "adam", "lr": 0.05, "schedule": "constant",
    "redirect": 0, "precision": "fp32",
}  # fmt: skip


def png(path, text):
    """Write a PNG that carries ``text`` as its settings."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt(images.SETTINGS_KEY, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return str(path)


def run(capsys, *words):
    """Return the status and the lines on stderr."""
    status = main(list(words))
    return status, capsys.readouterr().err.strip().splitlines()


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A module beside the picture that leaves a trace when it is imported."""
    (tmp_path / "stranger.py").write_text(
        "from pathlib import Path\nPath('imported').touch()\n"
        "import featviz as fv, torch\nfrom torch import nn\n"
        "def make():\n    with torch.random.fork_rng():\n        torch.manual_seed(0)\n"
        "        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))\n"
        "    return fv.Model(net, size=8)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("stranger", None)


@pytest.mark.parametrize("verb", ["render", "check"])
@pytest.mark.parametrize(
    "name",
    [
        "stranger:make",
        "sys:exit",
        "os:abort",
        "net.pt2",
        "hf:./x",
        "timm:a.pt2",
        "timm:resnet18",
        "timm:hf-hub:a/b",
        "torchvision:resnet18",
    ],
)
def test_code_named_in_a_picture_does_not_run(verb, name, stranger, capsys):
    path = png(stranger / "a.png", json.dumps({**RECORD, "model": name}))
    status, lines = run(capsys, verb, "--from", path, "-o", "b.png")
    assert status == 2
    assert len(lines) == 1
    assert "--trust" in lines[0]
    assert not (stranger / "imported").exists()


def test_a_trusted_or_named_model_runs(stranger, capsys):
    record = {**RECORD, "model": "stranger:make", "size": [8, 8]}
    path = png(stranger / "a.png", json.dumps(record))
    assert run(capsys, "render", "--from", path, "-o", "b.png", "--trust")[0] == 0
    assert (stranger / "imported").exists()
    assert run(capsys, "render", "stranger:make", "--from", path, "-o", "c.png")[0] == 0
    assert (stranger / "b.png").read_bytes() == (stranger / "c.png").read_bytes()


def test_the_api_below_does_not_run_it_either(stranger):
    with pytest.raises(fv.FeatvizError, match="may run code"):
        fv.load("stranger:make", trust=False)
    assert not (stranger / "imported").exists()


DAMAGED = [
    ("steps", 0), ("steps", -1), ("steps", 10**20), ("steps", "4"), ("steps", True), ("steps", [4]),
    ("lr", 0), ("lr", 1e300), ("lr", "0.1"), ("redirect", -1), ("redirect", 10**20),
    ("size", [0, 0]), ("size", [10**9, 10**9]), ("size", "8"), ("size", [8.5, 8]), ("size", []),
    ("param", 3), ("param", "nonsense"), ("transforms", "rotate:1e308"), ("transforms", "pad:999999"),
    ("transforms", {}), ("precision", "fp1"), ("seed", "a"), ("seed", [0, 1]), ("seed", 10**30),
    ("seed", []), ("objective", 3), ("objective", [3]), ("objective", []), ("model", 3),
    ("model", "x" * 5000), ("goal", 3), ("steps_done", "x"), ("optimizer", "sgd"), ("schedule", "x"),
    ("schedule", ["constant"]), ("transforms", "channel_noise:1e308"), ("param", "x" * 10**5),
]  # fmt: skip


@pytest.mark.parametrize("verb", ["render", "check"])
@pytest.mark.parametrize(("key", "value"), DAMAGED)
def test_damaged_settings_are_one_line(verb, key, value, tmp_path, capsys):
    path = png(tmp_path / "a.png", json.dumps({**RECORD, key: value}))
    status, lines = run(capsys, verb, "--from", path, "-o", str(tmp_path / "b.png"))
    assert status == 2
    assert len(lines) == 1
    assert len(lines[0]) < 1000
    assert "Error" not in lines[0].split(":")[1]  # no exception but FeatvizError


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "NaN", '{"steps": NaN}', '{"steps": ' + "9" * 5000 + "}", "[" * 5000,
     '{"model": "\\ud800"}', '{"a": ' * 3000 + "1" + "}" * 3000],
)  # fmt: skip
def test_damaged_text_is_one_line(text, tmp_path, capsys):
    path = png(tmp_path / "a.png", text)
    status, lines = run(capsys, "render", "--from", path, "-o", str(tmp_path / "b.png"))
    assert (status, len(lines)) == (2, 1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@hypothesis.settings(max_examples=int(os.environ.get("FEATVIZ_FUZZ", "300")))
@hypothesis.given(key=st.sampled_from(sorted(RECORD)), value=json_values)
def test_any_record_is_read_or_refused(key, value):
    try:
        stored = StoredRun.of({**RECORD, key: value})
    except fv.FeatvizError as error:
        assert len(str(error)) < 1000
        return
    assert 1 <= stored.settings.steps <= MOST
    assert 0 <= stored.settings.redirect <= MOST
    assert 0 < stored.settings.lr < 1e7
    assert len(stored.seeds) == len(stored.objectives)


@hypothesis.settings(max_examples=int(os.environ.get("FEATVIZ_FUZZ", "500")))
@hypothesis.given(
    st.lists(
        st.sampled_from(
            ["class:1", "channel:a:3", "+", "-", "*", "/", "(", ")", ",", "mean(", '"', "[", "]", ":",
             "ramp(", "1e999", "9" * 400, "=", "\ud800", "é", "\0", "direction:a:[1,2]", " "]
        ),
        max_size=12,
    ).map("".join)
)  # fmt: skip
def test_any_text_is_parsed_or_refused(text):
    try:
        goal = fv.objective(text)
    except fv.FeatvizError as error:
        assert len(str(error)) < 1000
    else:
        assert fv.objective(str(goal)) == goal


NUMBERS = st.sampled_from(
    [0, -1, 1, 0.5, 1e5, 1e6, 1e7, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 10**20]
) | st.floats() | st.integers()  # fmt: skip


@hypothesis.settings(max_examples=int(os.environ.get("FEATVIZ_FUZZ", "300")))
@hypothesis.given(
    name=st.sampled_from(["Jitter", "Rotate", "Scale", "Pad", "Noise", "Roll"]), value=NUMBERS
)
def test_transforms_have_finite_bounds(name, value):
    try:
        transform = getattr(fv.transforms, name)(value)
    except fv.FeatvizError:
        return
    assert abs(value) <= LARGEST
    tape = transform.draw(torch.Generator().manual_seed(0), 3, (16, 16))
    assert tape.isfinite().all()


REFUSED = [
    (fv.Settings, {"lr": float("inf")}), (fv.Settings, {"lr": 0}), (fv.Settings, {"lr": float("nan")}),
    (fv.Settings, {"redirect": -1}), (fv.Settings, {"steps": 10**20}), (fv.Settings, {"steps": True}),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "values"), REFUSED, ids=str)
def test_numbers_are_refused_when_settings_are_made(settings, values):
    with pytest.raises(fv.FeatvizError, match=next(iter(values))):
        settings(**values)


@pytest.mark.parametrize(
    "options",
    [
        {"step_size": float("inf")},
        {"eps": "1/"},
        {"eps": "inf"},
        {"steps": 10**20},
        {"restarts": 0},
    ],
    ids=str,
)
def test_attack_refuses_nonsense(options, tiny):
    with pytest.raises(fv.FeatvizError):
        fv.attack(tiny, torch.rand(1, 2, 8, 8), away="class:0", **options)


@pytest.mark.parametrize(
    "options", [{"tile": 1}, {"octaves": 10**20}, {"lr": float("inf")}], ids=str
)
def test_dream_refuses_nonsense(options, tiny):
    with pytest.raises(fv.FeatvizError, match=next(iter(options))):
        fv.dream(tiny, torch.rand(1, 2, 8, 8), **options)


@pytest.mark.parametrize(
    "guide",
    [np.full((2, 8, 8), 200, np.uint8), torch.full((2, 8, 8), 200.0), torch.full((2, 8, 8), 200)],
    ids=["bytes", "x255", "integers"],
)
def test_a_guide_is_in_the_range_of_images(guide, tiny):
    with pytest.raises(fv.FeatvizError, match="guide must be"):
        fv.dream(tiny, torch.rand(1, 2, 8, 8), "layer:output", guide=guide)


@pytest.mark.parametrize(
    "declared",
    [{"range": (1, 0)}, {"range": (0, float("inf"))}, {"range": 3}, {"logits": "nope"}, {"logits": 3},
     {"mean": float("nan")}],
    ids=str,
)  # fmt: skip
def test_a_model_declares_what_can_be(declared):
    with pytest.raises(fv.FeatvizError):
        fv.Model(nets.tiny().net, **declared)


@pytest.mark.parametrize("out", [None, "", 3])
def test_an_atlas_needs_a_folder(out, tiny):
    with pytest.raises(fv.FeatvizError, match="out must be"):
        fv.atlas(tiny, "output", out=out)


def test_sizes_are_refused_before_they_are_allocated(tiny):
    with pytest.raises(fv.FeatvizError, match="GiB"):
        fv.render(tiny, "class:0", size=9_999_999, steps=1)
    with pytest.raises(fv.FeatvizError, match="GiB"):
        fv.render(tiny, "class:0", transforms="pad:999999", steps=1)


@pytest.mark.parametrize("shape", [b"(10**12,)", b"(1000000000000,)", b"(10,", b"(-1,)", b"\xff"])
def test_an_array_header_does_not_allocate(shape, tmp_path):
    path = tmp_path / "a.npy"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + b", }"
    header = header.ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(40))
    with pytest.raises(fv.FeatvizError, match="cannot read"):
        arrays.load(str(path))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(fv.FeatvizError, match="not a regular file"):
        images.read(tmp_path / "a.png", 3)
    with pytest.raises(fv.FeatvizError, match="not a regular file"):
        images.read_settings(tmp_path / "a.png")


@pytest.mark.parametrize(
    "name", ["", "a.hdf", "a.wmf", "x" * 300 + ".png", "/proc/a.png", "a\0.png"]
)
def test_outputs_are_tried_before_the_first_step(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fv.FeatvizError):
        images.check_output(name)
    assert list(tmp_path.iterdir()) == []


def test_text_takes_linear_time_and_errors_one_line():
    for text in (
        "9" * 20_000 + "a",
        "class:" + "9" * 20_000 + "[",
        "(" * 300,
        "a" * (MAX_LENGTH + 1),
    ):
        with pytest.raises(fv.FeatvizError) as caught:
            fv.objective(text)
        assert len(str(caught.value)) < 1000
    parse("+".join(["class:1"] * 20_000))


def test_shorten_keeps_short_text():
    assert shorten("a b") == "a b"
    assert len(shorten("a" * 10**6)) == 100


def test_a_failing_network_is_one_line_with_its_place(tmp_path, monkeypatch, capsys):
    (tmp_path / "broken_factory.py").write_text(
        "import featviz as fv\nclass Odd(Exception): pass\n"
        "def leave(): raise SystemExit(7)\n"
        "def run(x): raise Odd('cannot\\ndo it')\n"
        "def make(): return fv.Model(run, size=8)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    status, lines = run(capsys, "layers", "broken_factory:leave")
    assert (status, len(lines)) == (2, 1)
    assert "SystemExit" in lines[0]
    status, lines = run(capsys, "layers", "broken_factory:make")
    assert (status, len(lines)) == (2, 1)
    assert "Odd: cannot do it" in lines[0]
    assert "broken_factory.py:4" in lines[0]
    status, lines = run(capsys, "--debug", "layers", "broken_factory:make")
    assert status == 2
    assert any("Traceback" in line for line in lines)


def test_the_state_of_the_process_does_not_change_images(tiny):
    def image():
        return fv.render(tiny, "class:0", steps=3, seed=1).images

    expected = image()
    torch.set_default_dtype(torch.float64)
    try:
        in_double = image()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        in_autocast = image()
        assert torch.is_autocast_enabled("cpu")
    with torch.device("meta"):
        on_meta = image()
    for other in (in_double, in_autocast, on_meta):
        assert torch.equal(expected, other)


def test_export_leaves_the_global_generator(tiny, tmp_path):
    before = torch.get_rng_state()
    fv.zoo.export(tiny, tmp_path / "net.pt2")
    assert torch.equal(before, torch.get_rng_state())


def test_a_second_thread_is_told_at_once(tiny):
    caught = []

    def enter():
        try:
            tiny(torch.rand(1, 2, 8, 8))
        except fv.FeatvizError as error:
            caught.append(str(error))

    with tiny.session():
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert len(caught) == 1
    assert "another thread" in caught[0]
    enter()
    assert len(caught) == 1


def test_empty_paths_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (
        ["render", "tests.fuzz.network:make", "class:0", "--steps", "1", "-o", ""],
        ["explain", "tests.fuzz.network:make", "", "-o", "a.png"],
        ["calibrate", "", "-o", "s.safetensors"],
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "empty path" in error
    assert not list(tmp_path.iterdir())


def test_images_of_one_colour_measure_nothing(tmp_path):
    for i in range(3):
        Image.new("RGB", (16, 16), (9, 99, 200)).save(tmp_path / f"{i}.png")
    with pytest.raises(FeatvizError, match="all 3 images have one and the same colour"):
        fv.calibrate(tmp_path, size=16)


def test_opacity_of_an_opacity_is_refused():
    with pytest.raises(FeatvizError, match="opaque parts"):
        fv.param.parse("alpha:alpha")


def test_a_guide_needs_positions():
    guide = np.zeros((8, 8, 3), np.float32)
    with pytest.raises(FeatvizError, match="a guide needs a layer with positions"):
        fv.dream(network.make(), guide, "class:0", guide=guide, octaves=1, steps=1)


def test_a_compressed_text_that_explodes_is_refused(tmp_path, capsys):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    path = tmp_path / "bomb.png"
    Image.new("RGB", (8, 8)).save(path)
    content = path.read_bytes()
    end = content.rindex(b"IEND") - 4
    text = chunk(b"zTXt", b"featviz\0\0" + zlib.compress(bytes(200_000_000)))
    path.write_bytes(content[:end] + text + content[end:])
    assert main(["render", "--from", str(path), "-o", str(tmp_path / "a.png")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("judges", [3, object(), {"a": 1}, [3]])
def test_judges_are_networks(judges):
    with pytest.raises(FeatvizError, match="judges must be networks or their names"):
        fv.check(network.make(), "class:0", judges=judges, steps=1, seeds=1, randomize=False)


def test_a_number_beyond_all_floats_is_damage():
    with pytest.raises(FeatvizError, match="lr is damaged"):
        fv.Settings.from_record(RECORD | {"lr": 10**400})


def test_dreams_and_patches_take_functions_as_transforms():
    image = np.full((8, 8, 3), 0.5, np.float32)
    made = fv.dream(
        network.make(), image, "layer:first", transforms=lambda x: x.flip(-1), octaves=1, steps=1
    )
    assert made.images.shape == (1, 3, 8, 8)


def test_a_broken_file_is_one_line_where_pillow_logs_as_well(tmp_path):
    tags = [(256, 4, 12), (257, 4, 12), (277, 3, 40451), (262, 3, 2)]
    content = b"II*\0" + struct.pack("<IH", 8, len(tags))
    content += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    path = tmp_path / "a.png"
    path.write_bytes(content + bytes(4))
    words = ["-m", "featviz", "explain", "tests.fuzz.network:make", path, "-o", tmp_path / "b.png"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
