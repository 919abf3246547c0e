"""Columns of the table of units that are there when asked for: interpretability, and words."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import featviz as fv
from featviz import atlases
from featviz.atlases import schema
from featviz.atlases.store import Store
from featviz.cli.main import main
from featviz.dataset_examples.forced_choice import JudgeEmbeddings
from featviz.errors import FeatvizError, FeatvizWarning
from tests import nets

COLOURS = ["red", "green", "blue"]
#: Pictures of a plain colour, in few steps.
LOOK = {"steps": 30, "transforms": "none", "lr": 0.5}


class Colours(nn.Module):
    """Each channel is for a colour, and against the next."""

    def __init__(self, sides: int = 8) -> None:
        super().__init__()
        self.colour = nn.Conv2d(3, 3, 1, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(sides)
        with torch.no_grad():
            self.colour.weight.copy_((torch.eye(3) - torch.eye(3).roll(1, 1))[..., None, None])

    def forward(self, x):
        return self.pool(self.colour(x))


def colours() -> fv.Model:
    return fv.Model(Colours(), size=8)


def judge() -> fv.Model:
    """See the mean colours of the quarters."""
    return fv.Model(nn.AdaptiveAvgPool2d(2), size=8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Thirty images of one colour each; as few as that are all compared with."""
    folder = tmp_path_factory.mktemp("photos")
    values = torch.randint(20, 235, (30, 3), generator=torch.Generator().manual_seed(0)).tolist()
    for i, value in enumerate(values):
        Image.new("RGB", (8, 8), tuple(value)).save(folder / f"{i:02}.png")
    return folder


def build(folder, photos, **given):
    options = {"images": photos, "judges": judge(), "layers": "colour", **LOOK, **given}
    return fv.atlas(colours(), out=folder, **options)


def mean_colour(image) -> torch.Tensor:
    return torch.from_numpy(np.array(image) / 255).mean((0, 1))


def never(*_, **__):
    raise AssertionError("rated twice")


def test_interpretability_is_that_of_the_formula(photos, tmp_path):
    atlas = build(tmp_path / "a", photos, seeds=[0, 1])
    natural = torch.stack([mean_colour(nets.opened(p)) for p in sorted(photos.iterdir())])
    for row in atlas.units_of("colour").to_pylist():
        unit = row["unit"]
        value = natural @ (torch.eye(3) - torch.eye(3).roll(1, 1))[unit].double()
        order = value.argsort(descending=True)
        shown = {
            sign: torch.stack(
                [mean_colour(atlas["colour", unit, sign, seed].image) for seed in (0, 1)]
            )
            for sign in "+-"
        }
        centre = natural[order[9:]].mean(0)

        def away(colours, centre=centre):
            return F.normalize(colours - centre, dim=1)

        towards = away(shown["+"]).mean(0) - away(shown["-"]).mean(0)
        top, bottom = (away(natural[o]) @ towards for o in (order[:9], order[-9:]))
        expected = (16 * (top[:, None] - bottom[None])).sigmoid().mean()
        assert row["interpretability"] == pytest.approx(float(expected), abs=1e-4)
        assert row["interpretability"] > 0.75
        assert row["interpretability_by"] == "AdaptiveAvgPool2d; images: 2 +, 2 -"


def test_wrong_images_tell_nothing(photos, tmp_path):
    """What lowers a unit, in the place of what raises it."""
    build(tmp_path / "a", photos, judges=None)
    store = Store(tmp_path / "a")
    (shard,) = set(store.records()["shard"].to_pylist())
    rows = store.pictures(shard).to_pylist()
    images = {(row["unit"], row["sign"]): row["image"] for row in rows}
    opposite = {"+": "-", "-": "+"}
    store.add([{**row, "image": images[row["unit"], opposite[row["sign"]]]} for row in rows])
    rated = build(tmp_path / "a", photos).units_of("colour")["interpretability"].to_pylist()
    assert max(rated) < 0.25


def test_units_are_rated_when_something_changed(photos, tmp_path, monkeypatch):
    rated = build(tmp_path / "a", photos).units_of("colour")
    with monkeypatch.context() as patch:
        patch.setattr(JudgeEmbeddings, "told_apart", never)
        assert build(tmp_path / "a", photos).units_of("colour") == rated
        assert build(tmp_path / "a", photos, judges=None).units_of("colour") == rated
        for change in ({"judges": fv.Model(nn.AvgPool2d(4), size=8)}, {"seeds": [0, 1]}):
            with pytest.raises(AssertionError, match="rated twice"):
                build(tmp_path / "a", photos, **change)
    again = build(tmp_path / "a", photos, seeds=[0, 1]).units_of("colour")
    assert again["interpretability_by"][0].as_py() == "AdaptiveAvgPool2d; images: 2 +, 2 -"
    alone = build(tmp_path / "b", photos, signs="+", units="1").units_of("colour")
    assert alone["interpretability_by"].to_pylist() == ["AdaptiveAvgPool2d; images: 1 +, 0 -"]
    assert alone["interpretability"][0].as_py() > 0.9


def test_ctrl_c_keeps_what_was_rated(photos, tmp_path, monkeypatch):
    told_apart, calls = JudgeEmbeddings.told_apart, []

    def second(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return told_apart(*arguments)

    monkeypatch.setattr(JudgeEmbeddings, "told_apart", second)
    atlas = build(tmp_path / "a", photos)
    assert atlas.interrupted
    first, *others = atlas.units_of("colour")["interpretability"].to_pylist()
    assert first > 0.9
    assert others == [None, None]
    atlas = build(tmp_path / "a", photos)
    assert atlas.units_of("colour")["interpretability"].null_count == 0
    assert len(calls) == 4


def test_too_few_images_are_no_selection(photos, tmp_path):
    few = [torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(20)]
    with pytest.warns(FeatvizWarning, match="too few images: the 9 that.*give at least 27"):
        atlas = build(tmp_path / "a", few)
    assert atlas.units_of("colour")["interpretability"].null_count == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": None}, "judges compare with images .*: give images"),
        ({"images": (image for image in [])}, "judges read images again: give a folder or a list"),
        ({"judges": []}, r"judges must be networks or their names, not \[\]"),
        ({"judges": 3}, "judges must be networks or their names, not 3"),
        ({"judges": "efficientnet_lite9"}, "did you mean"),
        ({"judges": [judge(), judge()]}, "judge 'AdaptiveAvgPool2d' is named twice"),
        ({"judges": nets.tiny()}, "takes images of 2 channels, not 3"),
        ({"param": "alpha"}, "judges need opaque images"),
    ],
)
def test_judges_that_cannot_judge(photos, tmp_path, given, message):
    with pytest.raises(FeatvizError, match=message) as caught:
        build(tmp_path / "a", photos, **given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()


def test_the_network_is_no_judge_of_itself(photos, tmp_path):
    model = colours()
    with pytest.raises(FeatvizError, match="judge 'Colours' is the network itself"):
        fv.atlas(model, "colour", out=tmp_path / "a", images=photos, judges=model, steps=1)


def test_atlases_of_earlier_versions_are_read(photos, tmp_path):
    atlas = build(tmp_path / "a", photos)
    (file,) = (tmp_path / "a/units").iterdir()
    before = pq.read_table(file)
    pq.write_table(before.drop_columns(sorted(schema.LATER)), file)
    old = fv.Atlas(tmp_path / "a").units_of("colour")
    assert old["interpretability"].null_count == old["words"].null_count == 3
    assert old["quantiles"].to_pylist() == before["quantiles"].to_pylist()
    atlases.view(tmp_path / "a")
    atlas = build(tmp_path / "a", photos)
    assert atlas.units_of("colour") == before.replace_schema_metadata(None)
    pq.write_table(before.drop_columns(["mean"]), file)
    with pytest.raises(FeatvizError, match="is damaged"):
        fv.Atlas(tmp_path / "a").units_of("colour")


def encoder() -> fv.Model:
    meaning = dict(zip(COLOURS, torch.eye(3), strict=True))
    return fv.Model(lambda x: x.mean((2, 3)), size=8, text=meaning.__getitem__)


def words(folder, photos, model=None, layer="colour", **given):
    options = {"encoder": encoder(), "top": 5, "k": 2, "atlas": folder, **given}
    return fv.recipes.unit_words(model or colours(), layer, photos, COLOURS, **options)


def test_words_are_stored_and_stay(photos, tmp_path):
    build(tmp_path / "a", photos, judges=None)
    found = words(tmp_path / "a", photos)
    assert [names[0] for names in found.words] == COLOURS
    table = fv.Atlas(tmp_path / "a").units_of("colour")
    assert table["words"].to_pylist() == found.words
    torch.testing.assert_close(torch.tensor(table["word_scores"].to_pylist()), found.scores)
    words(tmp_path / "a", photos, units=[2], k=1)
    table = build(
        tmp_path / "a", list(torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    )
    assert table.units_of("colour")["words"].to_pylist() == [*found.words[:2], ["blue"]]
    assert table.units_of("colour")["interpretability"].null_count == 0


def test_words_of_units_that_the_atlas_does_not_have(photos, tmp_path):
    build(tmp_path / "a", photos, judges=None, units="1", steps=1)
    words(tmp_path / "a", photos)
    rows = fv.Atlas(tmp_path / "a").units_of("colour").to_pylist()
    assert [(row["unit"], row["words"][0]) for row in rows] == [(1, "green")]
    other = fv.Model(nets.seeded(lambda: nets.Small(3)), size=8)
    for given, message in [
        ({"units": [1, 2]}, "has no unit 2 of 'colour': leave it out"),
        ({"layer": "pool"}, "has no units of layer 'pool': add them with featviz atlas"),
        ({"model": other, "layer": "first"}, "is the atlas of another network"),
        ({"folder": tmp_path / "nowhere"}, "no atlas in"),
    ]:
        with pytest.raises(FeatvizError, match=message):
            words(**{"folder": tmp_path / "a", "photos": photos, **given})


def test_the_command_and_the_pages(photos, tmp_path, capsys):
    command = ["atlas", "tests.test_atlas_columns:colours", "-o", str(tmp_path / "a"), "colour"]
    judging = ["--images", str(photos), "--judges", "tests.test_atlas_columns:judge"]
    assert main([*command, *judging, "--steps", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 6
    words(tmp_path / "a", photos)
    atlases.view(tmp_path / "a")
    site = tmp_path / "a/site/layers/colour"
    (layer,) = (
        json.loads(p.read_text("ascii").partition(",")[2].rstrip(");\n"))
        for p in [site / "layer.js"]
    )
    rated = fv.Atlas(tmp_path / "a").units_of("colour")["interpretability"].to_pylist()
    assert layer["interpretability"] == pytest.approx(rated, rel=1e-4)
    text = (site / "words.js").read_text("ascii")
    listed = dict(json.loads(text.partition(",")[2].rstrip(");\n")))
    assert listed["green"][0] == 1
