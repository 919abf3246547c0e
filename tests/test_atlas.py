"""Atlases: the plan, the store, going on after anything, workers, readers."""

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import featviz as fv
from featviz.atlases import similarity
from featviz.atlases.plan import batches, describe, enumerate_images, read_units
from featviz.atlases.store import Store
from featviz.cli.main import main
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.rendering.held_out import HELD_OUT, SEED_OFFSET, VIEWS
from featviz.transforms import parse, prepare
from tests import nets


@pytest.fixture
def model():
    return nets.tiny(channels=3)


GIVEN = {"layers": ["first", "second"], "steps": 4, "batch_size": 3}


def build(model, folder, **given):
    return fv.atlas(model, out=folder, **{**GIVEN, **given})


def contents(folder):
    """Every stored row by its key, counted from the raw shards: a doubled key fails."""
    found = {}
    for path in sorted(Path(folder).glob("pictures/*/*.parquet")):
        for row in pq.read_table(path).to_pylist():
            key = row["objective"], row["seed"], row["settings_hash"]
            assert key not in found, key
            found[key] = row
    return found


def pictures(folder):
    return {key: row["image"]["bytes"] for key, row in contents(folder).items()}


@pytest.fixture
def whole(model, tmp_path):
    """What an uninterrupted run makes."""
    build(model, tmp_path / "whole")
    return pictures(tmp_path / "whole")


# The plan.


def test_the_plan_has_every_combination_once(model):
    plan = enumerate_images(model, ["first", "second"], signs="+-", seeds=[0, 7])
    assert len(plan) == len(set(plan)) == (4 + 5) * 2 * 2
    assert plan[0].objective == "channel:first:0"
    assert {p.sign for p in plan} == {"+", "-"}
    for picture in plan:
        goal = fv.objective(picture.objective)
        unit = fv.channel(picture.layer, picture.unit)
        assert goal == (unit if picture.sign == "+" else -unit)


@given(st.integers(1, 40), st.integers(-45, 45), st.integers(-45, 45), st.integers(1, 5))
def test_units_are_read_as_python_slices(count, start, stop, step):
    assert read_units(f"{start}:{stop}:{step}", count) == list(range(count))[start:stop:step]


@pytest.mark.parametrize("text", ["", "a", "1:2:3:4", "0:4:0", "1,,2", "1:b"])
def test_units_that_say_nothing(text):
    with pytest.raises(FeatvizError, match="give them as 0:32"):
        read_units(text, 9)


def test_batches_are_of_one_layer_and_leave_nothing_out(model):
    plan = enumerate_images(model, ["first", "second"])
    cut = batches(plan, 3)
    assert [p for batch in cut for p in batch] == plan
    assert all(len({p.layer for p in batch}) == 1 and len(batch) <= 3 for batch in cut)


def test_patterns_and_templates(model):
    assert {p.layer for p in enumerate_images(model, "*")} == {i.name for i in model.layers()}
    given = {"units": "0:2", "signs": "+"}
    plan = enumerate_images(model, "s*", objective="neuron:{layer}:{unit}:0:0", **given)
    assert [p.objective for p in plan] == ["neuron:second:0:0:0", "neuron:second:1:0:0"]
    mine = enumerate_images(
        model, "s*", objective=lambda la, u: fv.channel(la, u) - fv.l2(), **given
    )
    assert fv.objective(mine[1].objective) == fv.channel("second", 1) - fv.l2()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": "secnd"}, "did you mean 'second'"),
        ({"layers": "x*"}, r"no layer matches 'x\*'"),
        ({"layers": []}, "at least one layer"),
        ({"units": [5]}, "no unit 5 in layer 'first': it has 0 to 3"),
        ({"units": "a"}, "units 'a': give them as"),
        ({"units": "9:"}, "no units '9:'"),
        ({"signs": "*"}, r"signs must be \+, - or"),
        ({"signs": ""}, r"signs must be \+, - or"),
        ({"seeds": []}, "seeds must be integers"),
        ({"seeds": None}, "seeds must be integers, not None"),
        ({"seeds": 2**63}, "of at most 62 bits"),
        ({"units": 1.5}, "units must be integers, not 1.5"),
        ({"layers": None}, "layers must be a text or a list"),
        ({"signs": None}, "signs must be a text or a list"),
        ({"workers": None}, "workers must be a whole number"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"objective": "channel:first:{unit}"}, "are both channel:first:0: use {layer}"),
        ({"objective": "channel:first:1"}, "has no {unit}"),
        ({"objective": "channel:{layer}:{unit}", "layers": "first", "units": "9,"}, "units '9,'"),
        (
            {"objective": "diversity:{layer} + channel:{layer}:{unit}"},
            "objectives of single images",
        ),
        ({"objective": "chanel:{layer}:{unit}"}, "chanel"),
        ({"steps": 0}, "steps must be positive"),
        ({"workers": -1}, "workers must not be negative"),
        ({"encoding": "bmp"}, "no encoding 'bmp': use png, webp"),
        ({"out": "nowhere://x"}, "nowhere"),
        ({"precision": "fp8"}, "no precision 'fp8'"),
        ({"images": "/nowhere"}, "no folder '/nowhere'"),
        ({"ray": "127.0.0.1:1"}, "no Ray cluster at '127.0.0.1:1'"),
    ],
)
def test_bad_input_is_one_line_before_the_first_picture(model, tmp_path, given, message):
    with pytest.raises(FeatvizError, match=message) as error:
        build(model, tmp_path / "atlas", **given) if "out" not in given else fv.atlas(
            model, **GIVEN, **given
        )
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("atlas/pictures/*/*"))


def test_a_file_in_the_place_of_the_folder(model, tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(FeatvizError, match=r"cannot (list|read|write) .*a"):
        build(model, tmp_path / "a")


def test_what_is_no_picture_is_refused(tmp_path):
    with pytest.raises(FeatvizError, match="gray or RGB images"):
        build(nets.tiny(channels=2), tmp_path)


# What is stored.


def test_a_row_says_what_the_picture_is_and_how_it_came_about(model, tmp_path):
    atlas = build(model, tmp_path, seeds=[3])
    entry = atlas["second", 2, "-"]
    record = entry.record
    alone = fv.render(model, "-channel:second:2", steps=4, seed=3)
    shown = torch.from_numpy(np.array(entry.image)).movedim(2, 0) / 255
    assert (shown - alone.images[0]).abs().max() <= 0.5 / 255 + 1e-6
    assert record["score"] == pytest.approx(alone.scores.item(), abs=1e-5)
    assert record["settings"]["steps"] == 4
    assert record["settings"]["model"] is None
    assert record["versions"]["torch"] == torch.__version__
    assert (record["layer"], record["unit"], record["sign"], record["seed"]) == (
        "second",
        2,
        "-",
        3,
    )
    draw = prepare(parse(HELD_OUT), [3 + SEED_OFFSET], VIEWS, (8, 8), torch.device("cpu"))
    goal = -fv.channel("second", 2)
    seen = [goal(model, draw(alone.images, i)).item() for i in range(VIEWS)]
    assert record["score_held_out"] == pytest.approx(np.mean(seen), abs=1e-4)


def test_an_atlas_is_looked_into(model, tmp_path):
    atlas = build(model, tmp_path, seeds=[0, 1])
    assert len(atlas) == 36
    assert atlas.layers == ["first", "second"]
    assert atlas.units("first") == [0, 1, 2, 3]
    assert atlas["first", 1].record["seed"] == 0
    assert atlas["first", 1, "-", 1].record["objective"] == "-channel:first:1"
    assert atlas["first", 1]._repr_png_()[:4] == b"\x89PNG"
    assert [(r["sign"], r["seed"]) for r in atlas.of("first", 1)] == [
        ("+", 0),
        ("+", 1),
        ("-", 0),
        ("-", 1),
    ]
    for key, message in [
        (("frst", 0), "did you mean 'first'"),
        (("first", 9), "no unit 9 of 'first'"),
        (("first", 0, "+", 5), "no '\\+' with seed 5"),
        ("first", r"\[layer, unit\]"),
    ]:
        with pytest.raises(FeatvizError, match=message):
            atlas[key]
    with pytest.raises(FeatvizError, match="no atlas in"):
        fv.Atlas(tmp_path / "elsewhere")


def test_a_unit_that_cannot_be_raised_says_so_and_is_not_tried_again(tmp_path):
    model = nets.tiny(channels=3)
    with torch.no_grad():
        model.net.second.weight[1] = 0
    build(model, tmp_path)
    atlas = fv.Atlas(tmp_path)
    failed = {r["unit"] for r in atlas.records.to_pylist() if r["failure"]}
    assert failed == {1}
    made = []
    build(model, tmp_path, on_stored=[made.append])
    assert not made


def test_webp(model, tmp_path):
    assert build(model, tmp_path, encoding="webp", units="0:1")["first", 0].image.format == "WEBP"


def test_the_network_comes_back_as_it_was(model, tmp_path):
    model.net.train()
    model.net.first.weight.requires_grad_(False)
    before = {k: v.clone() for k, v in model.net.state_dict().items()}
    build(model, tmp_path, units="0:1")
    assert model.net.training
    assert model.net.second.training
    assert [p.requires_grad for p in model.net.first.parameters()] == [False, True]
    assert all(torch.equal(before[k], v) for k, v in model.net.state_dict().items())
    assert not any(m._forward_hooks for m in model.net.modules())


# Going on.


@pytest.mark.parametrize("shards", [0, 1, 4])
def test_goes_on_where_a_run_ended(model, tmp_path, whole, shards):
    done = []

    def stop(rows):
        done.append(rows)
        if len(done) > shards:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        build(model, tmp_path / "a", on_stored=[stop])
    kept = sum(map(len, done))
    assert len(pictures(tmp_path / "a")) == kept
    made = []
    build(model, tmp_path / "a", on_stored=[made.extend])
    assert len(made) == len(whole) - kept
    assert pictures(tmp_path / "a") == whole


def test_ctrl_c_keeps_what_is_finished(model, tmp_path, whole):
    def stop(rows):
        raise KeyboardInterrupt

    atlas = build(model, tmp_path / "a", on_stored=[stop])
    assert atlas.interrupted
    assert len(atlas) == 3
    assert not build(model, tmp_path / "a").interrupted
    assert pictures(tmp_path / "a") == whole


def test_a_full_disk_ends_the_run_in_one_line(model, tmp_path, whole, monkeypatch):
    real, calls = os.fsync, []

    def fsync(number):
        calls.append(number)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(FeatvizError, match="No space left on device"):
        build(model, tmp_path / "a")
    monkeypatch.setattr(os, "fsync", real)
    kept = pictures(tmp_path / "a")
    assert 0 < len(kept) < len(whole)
    assert not [p for p in (tmp_path / "a").rglob(".*") if p.is_file()]
    build(model, tmp_path / "a")
    assert pictures(tmp_path / "a") == whole


@pytest.mark.parametrize("harm", ["cut", "empty", "flip", "text"])
def test_a_damaged_shard_is_set_aside_and_made_again(model, tmp_path, whole, harm):
    build(model, tmp_path / "a")
    shard = sorted((tmp_path / "a").glob("pictures/*/*.parquet"))[2]
    content = bytearray(shard.read_bytes())
    if harm == "flip":  # one bit of an image, which leaves size and footer alone
        place = content.find(b"IDAT")
        place = place if place >= 0 else len(content) // 3
        content[place + 8] ^= 1
    broken = {"cut": content[:-9], "empty": b"", "flip": content, "text": b"not a table"}[harm]
    shard.write_bytes(bytes(broken))
    if harm != "flip":  # which only a reading of everything finds
        (tmp_path / "a/index.parquet").unlink()
        with pytest.warns(FeatvizWarning, match="is damaged: .*skipped"):
            assert len(fv.Atlas(tmp_path / "a")) < len(whole)
    assert shard.exists()
    made = []
    with pytest.warns(FeatvizWarning, match="is damaged: .*it was renamed to 'pictures/"):
        build(model, tmp_path / "a", on_stored=[made.extend])
    assert 0 < len(made) <= 3
    assert pictures(tmp_path / "a") == whole
    assert shard.with_name(f"{shard.name}.damaged").exists()


def test_half_written_files_are_nothing(model, tmp_path, whole):
    build(model, tmp_path / "a", units="0:2")
    shard = sorted((tmp_path / "a").glob("pictures/*/*.parquet"))[0]
    half = shard.with_name(f".{shard.name}.k2j3h")
    half.write_bytes(shard.read_bytes()[:100])
    os.utime(half, (1, 1))
    build(model, tmp_path / "a")
    assert pictures(tmp_path / "a") == whole
    assert not half.exists()


def test_files_that_are_not_ours_are_left_alone(model, tmp_path):
    mine = tmp_path / "pictures/mine.parquet"
    mine.parent.mkdir()
    pq.write_table(pa.table({"x": [1]}), mine)
    with pytest.raises(FeatvizError, match="files that are not from an atlas"):
        build(model, tmp_path)
    build(model, tmp_path / "a")
    about = tmp_path / "a/atlas.json"
    about.write_text(about.read_text().replace('"format": 2', '"format": 3'))
    before = {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    for use in (build, lambda _, folder: fv.Atlas(folder)):
        with pytest.raises(
            FeatvizError, match="of format 3, but this version of featviz reads format 2"
        ):
            use(model, tmp_path / "a")
    assert before == {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    assert pq.read_table(mine)["x"].to_pylist() == [1]


def test_looking_changes_nothing(model, tmp_path):
    build(model, tmp_path)
    sorted(tmp_path.glob("pictures/*/*.parquet"))[0].write_bytes(b"broken")
    (tmp_path / "index.parquet").unlink()
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.warns(FeatvizWarning, match="skipped"):
        atlas = fv.Atlas(tmp_path)
    atlas["second", 0]
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_what_cannot_be_read_now_is_not_damaged(model, tmp_path, monkeypatch):
    build(model, tmp_path)
    before = sorted(tmp_path.rglob("*.parquet"))

    def fail(self, name):
        raise TimeoutError("the bucket does not answer")

    with monkeypatch.context() as patch:
        patch.setattr("featviz.atlases.remote_files.Files.open", fail)
        with pytest.raises(FeatvizError, match=r"cannot read .*does not answer"):
            build(model, tmp_path)
    assert sorted(tmp_path.rglob("*.parquet")) == before
    assert not list(tmp_path.rglob("*.damaged"))


def test_what_two_runs_made_twice_is_made_single(model, tmp_path, whole):
    build(model, tmp_path / "a")
    build(model, tmp_path / "b", batch_size=5)
    for shard in (tmp_path / "b").glob("pictures/*/*.parquet"):
        shard.replace(tmp_path / "a/pictures" / shard.parent.name / shard.name)
    made = []
    build(model, tmp_path / "a", on_stored=[made.extend])
    assert not made
    assert pictures(tmp_path / "a") == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()),
    ],
)
def test_networks_with_the_same_weights_are_told_apart(tmp_path, change):
    first = fv.Model(nets.seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), size=8)
    second = fv.Model(nets.seeded(change), size=8)
    given = {"out": tmp_path, "steps": 1, "units": "0:1", "signs": "+"}
    fv.atlas(first, "0", **given)
    with pytest.raises(FeatvizError, match="the atlas of another network"):
        fv.atlas(second, "0", **given)
    (tmp_path / "atlas.json").unlink()
    with pytest.raises(FeatvizError, match="the atlas of another network"):
        fv.atlas(second, "0", beside=True, **given)
    renamed = fv.Model(first.net, size=8, name="the same by another name")
    assert len(fv.atlas(renamed, "0", **given)) == 1


def test_what_a_picture_shows_and_its_encoding_are_settings(model, tmp_path):
    build(model, tmp_path, units="0:2", layers="first")
    given = {"units": "0:4", "layers": "first"}
    with pytest.raises(FeatvizError, match=r'objective "channel:.*neuron:'):
        build(model, tmp_path, objective="neuron:{layer}:{unit}", **given)
    with pytest.raises(FeatvizError, match='encoding "png" there, "webp" here'):
        build(model, tmp_path, encoding="webp", **given)
    both = build(model, tmp_path, objective="neuron:{layer}:{unit}", beside=True, **given)
    assert both["first", 1].record["objective"] == "neuron:first:1"
    assert fv.Atlas(tmp_path)["first", 1].record["objective"] == "channel:first:1"


def test_other_settings_are_refused_or_kept_beside(model, tmp_path):
    build(model, tmp_path)
    with pytest.raises(FeatvizError, match=r"other settings.*steps 4 there, 5 here"):
        build(model, tmp_path, steps=5)
    both = build(model, tmp_path, steps=5, beside=True)
    assert len(both) == 18
    assert both["first", 0].record["settings"]["steps"] == 5
    assert len(fv.Atlas(tmp_path)) == 36
    digest = both.records["settings_hash"][0].as_py()
    assert len(fv.Atlas(tmp_path, settings=digest[:6])) == 18
    with pytest.raises(FeatvizError, match="settings 'zz' match 0 of the atlas"):
        fv.Atlas(tmp_path, settings="zz")
    other = nets.tiny(channels=3)
    with torch.no_grad():
        other.net.first.weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(FeatvizError, match="the atlas of another network"):
        build(other, tmp_path, beside=True)


def test_the_index_is_only_an_index(model, tmp_path):
    atlas = build(model, tmp_path)
    index = tmp_path / "index.parquet"
    for content in (None, b"", b"rubbish", index.read_bytes()[:-20]):
        if content is None:
            index.unlink()
        else:
            index.write_bytes(content)
        assert fv.Atlas(tmp_path).records.equals(atlas.records)
    build(model, tmp_path)
    assert index.exists()
    gone = sorted(tmp_path.glob("pictures/*/*.parquet"))[0]
    rows = pq.read_metadata(gone).num_rows
    gone.unlink()
    assert len(fv.Atlas(tmp_path)) == len(atlas) - rows


KILLED = """
    import featviz as fv
    from tests import nets
    import sys, time
    if __name__ == "__main__":
        fv.atlas(nets.tiny(channels=3), ["first", "second"], out=sys.argv[1], steps=4,
                 batch_size=3, workers=int(sys.argv[2]), on_stored=[lambda rows: time.sleep(0.3)])
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_again_and_again_it_ends_with_the_same_pictures(tmp_path, whole, workers):
    script = tmp_path / "go.py"
    script.write_text(textwrap.dedent(KILLED))
    environment = os.environ | {"PYTHONPATH": str(Path(fv.__file__).parents[1])}
    command = [sys.executable, str(script), str(tmp_path / "a"), str(workers)]
    seen = 0
    for turn in range(3):
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            found = len(list(tmp_path.glob("a/pictures/*/*.parquet")))
            if found > seen + turn % 2:
                break
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seen = len(list(tmp_path.glob("a/pictures/*/*.parquet")))
    assert seen > 0
    subprocess.run(command, env=environment, check=True)
    assert pictures(tmp_path / "a") == whole


# Readers.


def test_other_tools_read_it(model, tmp_path):
    datasets = pytest.importorskip("datasets")
    duckdb = pytest.importorskip("duckdb")
    polars = pytest.importorskip("polars")
    atlas = build(model, tmp_path / "a")
    files = str(tmp_path / "a/pictures/*/*.parquet")
    count = duckdb.sql(f"select layer, count(*) from '{files}' group by 1 order by 1").fetchall()
    assert count == [("first", 8), ("second", 10)]
    frame = polars.read_parquet(files)
    assert frame.filter(polars.col("sign") == "+")["score"].len() == 9
    loaded = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    row = next(r for r in loaded if r["objective"] == "channel:second:3")
    assert isinstance(row["image"], Image.Image)
    assert np.array_equal(np.array(row["image"]), np.array(atlas["second", 3].image))


def test_an_object_store(model, whole):
    fv.atlas(model, out="memory://bucket/atlas", **GIVEN)
    atlas = fv.Atlas("memory://bucket/atlas")
    assert len(atlas) == len(whole)
    made = []
    fv.atlas(model, out="memory://bucket/atlas", **GIVEN, on_stored=[made.append])
    assert not made
    for key, content in list(whole.items())[:3]:
        layer, unit = key[0].lstrip("-").split(":")[1:]
        sign = "-" if key[0].startswith("-") else "+"
        expected = np.array(Image.open(io.BytesIO(content)))
        assert np.array_equal(np.array(atlas[layer, int(unit), sign].image), expected)


def test_tensorboard_has_sheets_by_layer(model, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    build(model, tmp_path / "a", tensorboard=tmp_path / "tb")
    events = EventAccumulator(str(tmp_path / "tb"), {"images": 0})
    events.Reload()
    assert events.Tags()["images"] == ["atlas/first", "atlas/second"]
    assert [e.step for e in events.Images("atlas/second")] == [3, 6, 9, 10]


def test_layers_with_odd_names_get_folders_of_their_own(tmp_path):
    store = Store(tmp_path)
    names = ["a/b", "a%2Fb", "..", "o[0]", "a b", "ä"]
    for name in names:
        row = {"objective": "x", "layer": name, "unit": 0, "sign": "+", "seed": 0}
        store.add([row | {"settings_hash": "h"}])
    assert sorted(store.records()["layer"].to_pylist()) == sorted(names)
    assert len(list((tmp_path / "pictures").iterdir())) == len(names)


# Similar units.


def test_similar_units_by_weights(model, tmp_path):
    likeness = similarity.by_weights(model, "second")
    rows = model.net.second.weight.detach().flatten(1).double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(likeness, rows @ rows.T, atol=1e-6)
    table = build(model, tmp_path).units_of("second").to_pylist()
    for row in table:
        others = [u for u in range(5) if u != row["unit"]]
        expected = sorted(others, key=lambda u: -(rows @ rows.T)[row["unit"], u])
        assert row["similar"] == expected
        assert row["similar_by"] == "weights"
    assert similarity.by_weights(model, "act") is None


# Dataset examples.


@pytest.fixture
def photos8(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for i in range(14):
        pixels = (torch.rand(8, 8, 3, generator=generator) * 255).to(torch.uint8).numpy()
        Image.fromarray(pixels).save(folder / f"p{i:02}.png")
    return folder


def test_examples_are_those_of_brute_force(model, tmp_path, photos8, monkeypatch):
    atlas = build(model, tmp_path / "a", images=photos8, steps=1)
    names = sorted(p.name for p in photos8.iterdir())
    stack = np.stack([np.array(Image.open(photos8 / n)) for n in names])
    images = torch.from_numpy(stack).movedim(3, 1).float() / 255
    for layer, count in (("first", 4), ("second", 5)):
        maps = model.activations(images, [layer])[layer].detach().double()
        values = maps.flatten(2).mean(2).numpy()
        order = np.argsort(-values, axis=0, kind="stable")
        rows = atlas.examples_of(layer).to_pylist()
        assert len(rows) == count * 18
        for row in rows:
            column = order[:, row["unit"]]
            index = column[row["rank"]] if row["side"] == "top" else column[::-1][row["rank"]]
            assert row["source"] == names[index]
            assert row["value"] == pytest.approx(values[index, row["unit"]], abs=1e-5)
            top, left, low, right = row["box"]
            shown = np.array(Image.open(io.BytesIO(row["image"]["bytes"])))
            assert np.array_equal(shown, stack[index][top:low, left:right])
        correlations = np.corrcoef(values.T)
        for row in atlas.units_of(layer).to_pylist():
            u = row["unit"]
            assert row["images"] == 14
            assert row["mean"] == pytest.approx(values[:, u].mean(), abs=1e-5)
            expected = np.quantile(values[:, u], np.linspace(0, 1, 101))
            np.testing.assert_allclose(row["quantiles"], expected, atol=1e-5)
            others = sorted((o for o in range(count) if o != u), key=lambda o: -correlations[u, o])
            assert row["similar"] == others
            np.testing.assert_allclose(row["similarity"], correlations[u, others], atol=1e-4)
            assert row["similar_by"] == "activations"

    def never(*_, **__):
        raise AssertionError("the same files were looked at twice")

    monkeypatch.setattr("featviz.atlases.unit_tables.find_examples", never)
    build(model, tmp_path / "a", images=photos8, steps=1)
    build(model, tmp_path / "a", steps=1)
    build(model, tmp_path / "a", steps=1, units="1:2")  # a smaller plan takes nothing away
    assert atlas.units_of("first")["images"].to_pylist() == [14] * 4
    (photos8 / "p00.png").unlink()
    with pytest.raises(AssertionError, match="looked at twice"):
        build(model, tmp_path / "a", images=photos8, steps=1)


def test_examples_stay_when_a_run_does_without(model, tmp_path, photos8):
    given = {"steps": 1, "layers": "first"}
    build(model, tmp_path / "a", units="0:2", images=photos8, **given)
    atlas = build(model, tmp_path / "a", units="0:3", **given)
    assert atlas.units_of("first")["images"].to_pylist() == [14, 14, None]
    atlas = build(model, tmp_path / "a", units="0:3", images=photos8, **given)
    assert atlas.units_of("first")["images"].to_pylist() == [14, 14, 14]
    assert len(atlas.examples_of("first")) == 3 * 18
    next((tmp_path / "a/units").glob("*.parquet")).write_bytes(b"broken")
    with pytest.warns(FeatvizWarning, match="is damaged.*made again"):
        atlas = build(model, tmp_path / "a", units="0:3", images=photos8, **given)
    assert atlas.units_of("first")["images"].to_pylist() == [14, 14, 14]


def test_ctrl_c_while_the_data_are_looked_at(model, tmp_path, photos8, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("featviz.atlases.unit_tables.find_examples", stop)
        atlas = build(model, tmp_path / "a", images=photos8, steps=1)
    assert atlas.interrupted
    assert len(atlas) == 18
    assert not build(model, tmp_path / "a", images=photos8, steps=1).interrupted


# The command line.


@pytest.fixture
def here(monkeypatch):
    monkeypatch.chdir(Path(fv.__file__).parents[1])


def test_the_command(tmp_path, capsys, here):
    folder = tmp_path / "atlas"
    command = ["atlas", "tests.nets:rgb", "-o", str(folder), "--layers", "first", "second"]
    command += ["--units", "0:2", "--signs", "+-", "--steps", "4", "--batch", "3"]
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["made"] == document["pictures"] == 8
    assert document["layers"] == {"first": 2, "second": 2}
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("0 images rendered, 8 in ")
    for change, message in [
        (["--steps", "5"], "other settings"),
        (["--units", "x"], "units 'x'"),
        (["--signs", "?"], "signs must be"),
        (["--seeds", "a"], "is not a seed"),
        (["--layers", "thrid"], "no layer 'thrid'"),
    ]:
        assert main([*command, *change]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert main(["atlas", "tests.nets:rgb", "-o", str(folder)]) == 2
    assert "give --layers" in capsys.readouterr().err


def test_an_atlas_from_before_focus_is_continued_without_it(model, tmp_path):
    plan = fv.Settings(focus=0, steps=2).resolve(model)
    digest, settings = describe(model, plan, None, "png")
    assert settings.pop("focus") == 0
    text = json.dumps(settings, sort_keys=True).encode()
    assert hashlib.blake2b(text, digest_size=8).hexdigest() == digest
    build(model, tmp_path, focus=0)
    with pytest.raises(fv.FeatvizError, match=r"other settings \(focus 0.0 there, 1.0 here\)"):
        build(model, tmp_path, focus=1)
