"""The method auto: the best of the measured table in the time allowed, recorded, never silent."""

import re
from pathlib import Path

import pytest
import torch

import featviz as fv
from featviz.attribution import choice
from featviz.attribution.settings import AttributionSettings
from tests import nets
from tests.test_attribute import pictures
from tests.test_cli import run

PAGE = Path(__file__).parent.parent / "docs" / "attribution.md"


def methods(model, x, **options):
    goals = [fv.channel("output", 0)]
    config = AttributionSettings.of(None, options)
    return choice.choose_methods(config, model, goals, x, 4)


def test_the_order_is_that_of_the_table_on_the_page():
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| [\d.]+ \| -?[\d.]+ \|",
                      PAGE.read_text("utf-8"), re.MULTILINE)  # fmt: skip
    gains = {name: float(insertion) - float(deletion) for name, deletion, insertion in rows}
    order = [c.method for c in choice.CANDIDATES]
    assert order == sorted(order, key=lambda name: -gains[name])
    cheaper = [c.passes for c in choice.CANDIDATES]
    assert cheaper == sorted(cheaper, reverse=True)  # or the better one would always do


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(100, ("lime", "lrp", "grad_cam")), (1, ("lrp", "grad_cam")), (0.1, ("grad_cam",))],
)
def test_what_the_time_allows(monkeypatch, seconds, expected):
    monkeypatch.setattr(choice, "_seconds_of_a_pass", lambda evaluator, images: 0.01)
    model, x = nets.tiny(channels=3), pictures(1, 3, (16, 16))
    found = methods(model, x, seconds=seconds)
    assert found.methods == expected
    assert f"about {seconds} seconds" in found.reason
    with pytest.raises(fv.FeatvizError, match=r"no method of auto takes 0.01 seconds or less: gra"):
        methods(model, x, seconds=0.01)
    with pytest.raises(fv.FeatvizError, match=r"so does layer \(grad_cam\): give one of them"):
        methods(model, x, seconds=1, layer="act")


def test_a_refusal_is_recorded_and_the_next_method_is_used(monkeypatch):
    """A branch on the values of the image makes propagation impossible."""

    class Branching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 3, 3)

        def forward(self, x):
            x = x if x.sum() > -1e9 else -x
            return self.two(self.one(x).relu()).exp().mean((2, 3))

    monkeypatch.setattr(choice, "_seconds_of_a_pass", lambda evaluator, images: 0.01)
    model, x = fv.Model(nets.seeded(Branching), size=(16, 16)), pictures(1, 3, (16, 16))
    goal = fv.channel("output", 0)
    with pytest.raises(fv.FeatvizError, match="cannot be traced") as refusal:
        fv.attribute(model, x, goal, method="lrp")
    result = fv.attribute(model, x, goal, seconds=1)
    assert result.method == result.settings["method"] == "grad_cam"
    assert result.settings["choice"].endswith(f"; lrp refuses: {refusal.value}")
    assert result.record["layer"] == result.settings["layer"]
    named = fv.attribute(model, x, goal, method="grad_cam")
    assert torch.equal(result.attributions, named.attributions)
    assert "choice" not in named.settings


def test_real_time_is_measured():
    model, x = nets.tiny(channels=3), pictures(1, 3, (16, 16))
    assert methods(model, x, seconds=1e6).methods[0] == "lime"
    with pytest.raises(fv.FeatvizError, match=r"no method of auto takes 1e-09 seconds or less"):
        methods(model, x, seconds=1e-9)
    with pytest.raises(fv.FeatvizError, match=r"seconds are for the method auto, .* not saliency"):
        fv.attribute(model, x, "channel:output:0", method="saliency", seconds=1)


def test_the_command_says_what_was_chosen(capsys, tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 64), (90, 120, 30)).save(tmp_path / "a.png")
    call = ["explain", "efficientnet_lite0", str(tmp_path / "a.png"), "-o", tmp_path / "o.png"]
    status, text, _ = run(capsys, *call, "--size", "64")
    assert status == 0
    assert "grad_cam of _swish at 64x64" in text
    assert "method auto: the best of a single pass" in text
