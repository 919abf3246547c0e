"""What results look like in a notebook and in a terminal."""

import base64
import importlib.util
import io
import re
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import featviz as fv
from featviz import bars
from featviz.io import plots
from tests import nets

FAST = {"steps": 3, "size": 32}


@pytest.fixture(scope="module")
def result(lite0):
    return fv.render(lite0, [f"class:{c}" for c in range(4)], **FAST)


def test_text_is_one_short_line(result, lite0):
    text = str(result)
    assert len(text.splitlines()) == 1
    assert len(text) < 200
    assert "class:0, class:1, class:2, …" in text
    assert f"{result.scores[0]:.4g}" in text
    assert "tensor" not in text
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for other in (fv.attribute(lite0, x, method="saliency"), fv.attack(lite0, x, steps=1)):
        assert len(str(other)) < 200
        assert "tensor" not in str(other)


def test_html_holds_the_sheet_and_a_caption(result):
    page = result[0]._repr_html_()
    png = base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])
    assert Image.open(io.BytesIO(png)).size == (32, 32)
    assert "<figcaption>Result: class:0; score" in page


def test_html_escapes(lite0):
    quoted = fv.render(lite0, 'class:"tabby"', **FAST)
    assert "class:&quot;tabby&quot;" in quoted._repr_html_()


def test_slices(result):
    part = result[1:3]
    assert torch.equal(part.images, result.images[1:3])
    assert torch.equal(part.history, result.history[:, 1:3])
    assert (part.objectives, part.seeds) == (["class:1", "class:2"], [1, 2])
    assert part.settings["goal"] == "per_sample(class:1, class:2)"
    assert result.settings["goal"] == "per_sample(class:0, class:1, class:2, class:3)"
    assert torch.equal(result[::-1].scores, result.scores.flip(0))
    with pytest.raises(fv.FeatvizError, match="no images 4:4 of 4"):
        result[9:]


def test_slices_of_attacks(lite0):
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    attacked = fv.attack(lite0, x, steps=1)
    part = attacked[1:]
    assert isinstance(part, fv.AttackResult)
    assert torch.equal(part.originals, attacked.originals[1:])
    assert torch.equal(part.norm, attacked.norm[1:])


def test_arrays_have_channels_last(result):
    array = np.asarray(result)
    assert array.shape == (4, 32, 32, 3)
    assert np.array_equal(array[2, :, :, 1], result.images[2, 1].numpy())
    assert np.asarray(result, dtype=np.float16).dtype == np.float16
    assert np.array_equal(result.numpy(), array)


def test_pil_and_show(result, monkeypatch):
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda page: shown.append(page.size))
    result.show()
    assert shown == [result.pil().size]


def test_a_plotted_line_rises_where_the_score_does():
    page = np.asarray(plots.lines(torch.linspace(0, 1, 50)[:, None]).convert("RGB")).astype(int)
    blue = np.abs(page - (0, 0x72, 0xB2)).sum(2) < 30
    rows = [np.flatnonzero(blue[:, x]).mean() for x in (100, 300, 500)]
    assert rows[0] > rows[1] > rows[2]
    with pytest.raises(fv.FeatvizError, match="no finite values"):
        plots.lines(torch.full((3, 1), float("nan")))


def test_plot_draws_the_history(result):
    assert result.plot().size == (560, 280)


def test_live_preview(lite0):
    shown = []
    live = fv.callbacks.Live(0.0, show=shown.append)
    plain = fv.render(lite0, [1, 2], **FAST)
    watched = fv.render(lite0, [1, 2], callbacks=[live], **FAST)
    assert torch.equal(plain.images, watched.images)
    assert len(shown) == FAST["steps"]
    assert shown[0].size[0] > 2 * 32
    shown.clear()
    fv.render(lite0, 1, callbacks=[fv.callbacks.Live(1e9, show=shown.append)], **FAST)
    assert len(shown) == 1


def test_live_preview_outside_of_a_notebook(lite0):
    with pytest.raises(fv.FeatvizError, match=r"Live\(show=function\)"):
        fv.render(lite0, 1, callbacks=[fv.callbacks.Live()], **FAST)


def test_parts_of_the_table_of_layers_are_tables(lite0):
    table = lite0.layers()
    part = table[-3:]
    assert (len(part), part.remark) == (3, table.remark)
    assert str(part).splitlines()[0].split() == ["layer", "type", "shape", "units", "calls"]
    assert len(str(part).splitlines()) == 4
    assert repr(part) == str(part)
    assert part._repr_html_().count("<tr><td>") == 3
    assert table["_blocks.10"] == table.find("_blocks.10")
    assert table[0] == next(iter(table))
    with pytest.raises(fv.FeatvizError, match=r"no layer '_blocks\.99'; did you mean"):
        table["_blocks.99"]


def test_an_atlas_shows_some_of_its_units(tmp_path):
    pytest.importorskip("pyarrow")
    model = nets.tiny(channels=3)
    atlas = fv.atlas(model, ["first", "second"], out=tmp_path, signs="-", steps=2)
    page = Image.open(io.BytesIO(atlas._repr_png_()))
    assert page.size == atlas.sheet().size
    first = atlas["first", 0, "-"].image.resize((128, 128), Image.Resampling.BILINEAR)
    assert np.array_equal(atlas.sheet(count=1), first)
    assert repr(atlas["first", 0, "-"]) == "<AtlasImage -channel:first:0; seed 0; 8x8>"
    wide, high = atlas.sheet(count=9).size
    assert (wide // 128, high // 128) == (4, 3)
    assert np.array_equal(atlas.sheet(count=2), atlas.sheet(count=2))
    with pytest.raises(fv.FeatvizError, match="count must be"):
        atlas.sheet(count=0)


@pytest.mark.parametrize("widgets", [True, False])
def test_bars_are_text_without_widgets(widgets, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: widgets or None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm.auto may warn here that there are none
        bar = bars.tqdm([1, 2], progress=False)
    assert list(bar) == [1, 2]
    assert widgets or type(bar).__module__ == "tqdm.std"


def test_model_and_models(lite0):
    page = lite0._repr_html_()
    assert page.count("<tr><td>") == len(lite0.layers())
    assert "<td>_blocks.10<td>MBConvBlock<td>112x14x14<td>112" in page
    assert re.search(r"^efficientnet_lite0  ", repr(fv.models()), re.MULTILINE)
