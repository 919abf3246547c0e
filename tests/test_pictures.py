"""Images as files: rounding, sheets, settings, and that files appear whole or not at all."""

import itertools
import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

import featviz as fv
from featviz.io import files, images, sheets
from featviz.optim.result import slug
from tests import nets


def made(count=2, channels=3, size=(20, 30)):
    pictures = torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(0))
    return fv.Result(
        images=pictures,
        scores=torch.arange(float(count)),
        history=torch.zeros(4, count),
        objectives=[f"channel:_blocks.10:{i}" for i in range(count)],
        seeds=list(range(count)),
        settings={"version": "0.1.0", "model": "efficientnet_lite0", "steps": 4},
    )


def test_values_round_and_then_clip():
    values = torch.tensor([-1.0, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 7.0]).expand(3, 1, 6)
    assert np.asarray(sheets.to_pil(values))[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_one_picture_is_saved_pixel_by_pixel(tmp_path, channels, mode):
    result = made(1, channels)
    result.save(tmp_path / "a.png")
    picture = nets.opened(tmp_path / "a.png")
    assert picture.mode == mode
    assert picture.size == (30, 20)
    pixels = torch.tensor(np.asarray(picture)).reshape(20, 30, channels).movedim(-1, 0)
    assert (pixels / 255 - result.images[0]).abs().max() <= 0.5 / 255 + 1e-6


def test_a_sheet_holds_every_picture_above_its_label(tmp_path):
    result = made(5)
    result.save(tmp_path / "sheet.png", columns=3)
    page = np.asarray(nets.opened(tmp_path / "sheet.png").convert("RGB"))
    for i in range(5):
        picture = np.asarray(sheets.to_pil(result.images[i]))
        hits = [
            (y, x)
            for y in range(page.shape[0] - 20)
            for x in (8 + column * 38 for column in range(3))
            if (page[y : y + 20, x : x + 30] == picture).all()
        ]
        assert len(hits) == 1
        y, x = hits[0]
        assert x == 8 + i % 3 * 38
        assert (page[y + 20 : y + 40, x : x + 30] < 128).any(), "no label below the image"


@pytest.mark.parametrize("width", [64, 96, 128, 200])
@pytest.mark.parametrize(
    "label",
    [
        "channel:_blocks.10:5; seed 2",
        "head:blocks.6.attn.proj.in:2:6",
        "channel:blocks.9.mlp.act:100 - 0.5*channel:blocks.9.mlp.act:1200",
        'direction:_blocks.10:"/some/where/a_file_of_vectors.npy"',
        'class:"golden retriever"',
    ],
)
def test_labels_break_between_words_and_never_within_a_number(label, width):
    font = ImageFont.load_default(10)
    lines = sheets.wrap(label, font, width).split("\n")
    assert "".join("".join(lines).split()) == "".join(label.split())
    assert all(font.getlength(line) <= width for line in lines)
    for before, after in itertools.pairwise(lines):
        assert not re.search(r"\d$", before) or not re.match(r"\d|\.\d", after)


def test_only_a_word_without_any_joint_is_cut():
    font = ImageFont.load_default(10)
    assert sheets.wrap("a:" + 30 * "x", font, 60).replace("\n", "") == "a:" + 30 * "x"
    assert sheets.wrap("channel:_blocks.10:5", font, 70) == "channel:\n_blocks.10:5"
    assert sheets.wrap("", font, 60) == ""


def test_rows_are_as_high_as_their_own_labels():
    tiles = torch.zeros(3, 3, 40, 40)
    short, long = "a", "a label of many words that is wrapped"
    single = sheets.sheet(tiles[:2], [short, short], columns=2).height
    double = sheets.sheet(tiles[:2], [long, short], columns=2).height
    assert double > single
    both = sheets.sheet(torch.zeros(4, 3, 40, 40), [short, short, long, short], columns=2).height
    assert both == single + double - 8


def test_settings_travel_with_the_picture(tmp_path):
    result = made(2)
    result.save(tmp_path / "a.png")
    kept = images.read_settings(tmp_path / "a.png")
    assert kept["model"] == "efficientnet_lite0"
    assert kept["objective"] == result.objectives
    assert kept["seed"] == [0, 1]
    assert kept["steps"] == 4
    assert nets.opened(tmp_path / "a.png").info["Software"] == "featviz 0.1.0"


def test_separate_files_carry_their_own_settings(tmp_path):
    written = made(2).save(tmp_path / "a.png", separate=True)
    assert [p.name for p in written] == [
        "a.png",
        "a.channel-_blocks.10-0.seed0.png",
        "a.channel-_blocks.10-1.seed1.png",
    ]
    assert images.read_settings(written[2])["objective"] == ["channel:_blocks.10:1"]
    assert nets.opened(written[2]).size == (30, 20)


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_other_formats(tmp_path, ending):
    made(1).save(tmp_path / f"a.{ending}")
    assert nets.opened(tmp_path / f"a.{ending}").size == (30, 20)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    made(1).save(path)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(fv.FeatvizError, match="No space left on device"):
        made(2).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.txt", "names no image format"),
        ("a", "names no image format"),
        ("nowhere/a.png", "there is no folder"),
        ("folder.png", "not writable"),
    ],
)
def test_outputs_that_cannot_be_written(tmp_path, name, message):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(fv.FeatvizError, match=message):
        made(1).save(tmp_path / name)


def test_signals_are_not_drawn():
    with pytest.raises(fv.FeatvizError, match=r"cannot draw shape \(7, 20, 30\)"):
        made(1, channels=7)._repr_png_()


def test_a_notebook_shows_the_sheet():
    assert made(2)._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"text", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image"),
    ],
)
def test_reading_settings_from_what_is_no_picture(tmp_path, content, message):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(fv.FeatvizError, match=message):
        images.read_settings(path)


def test_pictures_of_others_and_damaged_settings(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (2, 2)).save(path)
    with pytest.raises(fv.FeatvizError, match="carries no featviz settings"):
        images.read_settings(path)
    from PIL.PngImagePlugin import PngInfo

    for text in ("{", json.dumps([1])):
        info = PngInfo()
        info.add_itxt(images.SETTINGS_KEY, text)
        Image.new("RGB", (2, 2)).save(path, pnginfo=info)
        with pytest.raises(fv.FeatvizError, match="damaged"):
            images.read_settings(path)


@given(st.lists(st.text(min_size=1, max_size=120), min_size=2, max_size=6, unique=True))
def test_slugs_are_safe_and_different(texts):
    names = [slug(t) for t in texts]
    for name in names:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
        assert 0 < len(name) < 100
    assert len(set(names)) == len(names)


def test_twins_get_files_of_their_own(tmp_path):
    result = made(2)
    result.objectives, result.seeds = ["class:1"] * 2, [0, 0]
    names = [p.name for p in result.save(tmp_path / "a.png", separate=True)]
    assert names == ["a.png", "a.class-1.seed0.png", "a.class-1.seed0-2.png"]


def test_joining_keeps_order_failures_and_unequal_histories():
    first, second = made(2), made(3)
    second.history = torch.ones(6, 3)
    second.failures = {1: "dead"}
    joined = fv.Result.join([first, second])
    assert len(joined) == 5
    assert joined.failures == {3: "dead"}
    assert joined.history.shape == (6, 5)
    assert joined.history[5].isnan().tolist() == [True, True, False, False, False]
    assert joined[3].failures == {0: "dead"}


def test_reading_pictures_of_every_kind(tmp_path):
    gray = Image.new("L", (8, 6), 51)
    clear = Image.new("RGBA", (8, 6), (255, 0, 0, 0))
    for name, picture, expected in [
        ("gray", gray, (0.2, 0.2, 0.2)),
        ("clear", clear, (1, 1, 1)),
        ("red", Image.new("RGB", (8, 6), "red"), (1, 0, 0)),
    ]:
        picture.save(tmp_path / f"{name}.png")
        found = images.read(tmp_path / f"{name}.png", 3)
        assert found.shape == (1, 3, 6, 8)
        assert found[0, :, 3, 4].tolist() == pytest.approx(expected)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    gray.save(tmp_path / "turned.jpg", exif=exif)
    assert images.read(tmp_path / "turned.jpg", 1).shape == (1, 1, 8, 6)
    assert images.read(tmp_path / "gray.png", 3, (4, 4)).shape == (1, 3, 4, 4)
    with pytest.raises(fv.FeatvizError, match="as 2 channels"):
        images.read(tmp_path / "gray.png", 2)


def test_quality_sets_what_is_not_given(tiny):
    fast = fv.render(tiny, "channel:first:2", quality="fast", callbacks=[lambda s: True])
    assert fast.settings["steps"] == 64
    assert fast.settings["transforms"] == (
        "pad:0:blur,jitter,rotate:10,scale:0.9:1.1,channel_noise:0.05"
    )
    own = fv.render(tiny, "channel:first:2", quality="fast", steps=2, transforms="none")
    assert (own.settings["steps"], own.settings["transforms"]) == (2, "none")
    signal = fv.render(nets.tiny(1), "channel:first:2", quality="fast", callbacks=[lambda s: True])
    assert signal.settings["transforms"] == "jitter,noise"
    with pytest.raises(fv.FeatvizError, match="no quality 'fats'; did you mean 'fast'"):
        fv.render(tiny, "channel:first:2", quality="fats")
