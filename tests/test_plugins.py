"""Another package adds an objective, a parameterization, a transform and a family of networks."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import featviz as fv
from featviz import plugins
from featviz.cli.main import shield
from featviz.networks import zoo
from featviz.objectives.unit import KINDS
from featviz.objectives.units import Channel
from featviz.transforms.presets import NAMES

SOURCE = Path(__file__).parent / "plugin"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The plug-in's module, importable once a text asks for it."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(SOURCE, folder / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", folder / "site"]
    subprocess.run([*pip, *options, folder / "source"], check=True)
    sys.path.insert(0, str(folder / "site"))
    importlib.invalidate_caches()
    yield "featviz_example"
    sys.path.remove(str(folder / "site"))
    sys.modules.pop("featviz_example", None)
    KINDS.pop("contrast", None)
    importlib.invalidate_caches()


def test_names_are_listed_without_an_import(package):
    assert plugins.names(plugins.OBJECTIVES) == ["broken", "channel", "contrast"]
    with pytest.raises(fv.FeatvizError, match="did you mean 'contrast'"):
        fv.objective("contrst:a")
    assert package not in sys.modules


def test_built_in_names_are_not_overridden(package):
    assert type(fv.objective("channel:a:1")) is Channel
    with pytest.raises(fv.FeatvizError, match="objective 'channel' is built in"):
        type("Mine", (Channel,), {"kind": "channel", "__module__": "mine"})
    assert KINDS["channel"] is Channel


def test_all_members_work_together(package):
    model = fv.Model(fv.load("example:conv3", channels=5).net, size=(12, 16))
    assert model.net[0].out_channels == 5
    result = fv.render(
        model, "contrast:0:power=2 - 0.1*channel:0:4", param="gray", transforms="dim:0.25", steps=2
    )
    image = result.images[0]
    assert torch.equal(image[0], image[1])
    assert result.settings["param"] == "gray"
    assert fv.param.text(fv.param.parse("gray:sd=0.1")) == "gray:sd=0.1"
    (dim,) = fv.transforms.parse("dim:0.25")
    assert torch.equal(dim.prepare(torch.zeros(1, 1, 0))(image, 0), image / 4)
    assert fv.transforms.text([dim]) == "dim:0.25"
    result = fv.render(model, "contrast:0:power=2", param="gray", transforms="dim:0.25", steps=2)
    values = model.activations(result.images, ["0"])["0"]
    objective = fv.objective("contrast:0:power=2")
    assert str(objective) == "contrast:0:power=2"
    expected = values.flatten(1).std(1) ** 2
    assert torch.allclose(torch.as_tensor(result.scores).flatten().float(), expected, rtol=1e-4)


def test_an_objective_with_a_minus_is_no_option_of_the_command_line(package):
    assert shield("-contrast:0") == " -contrast:0"


def test_families_are_listed(package):
    rows = {row.name: row for row in zoo.models()}
    assert rows["example:NAME"].description.startswith("Convolutions called conv1")
    assert "'broken' of featviz-example-plugin" in rows["broken:NAME"].problem


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda: fv.objective("broken:a"), "plug-in 'broken' of featviz-example-plugin cannot be"),
        (lambda: fv.objective("broken:0"), "No module named 'featviz_example_missing'"),
        (lambda: fv.load("broken:a"), "No module named 'featviz_example_missing'"),
        (lambda: fv.load("example:resnet"), "example has no network 'resnet': conv3"),
        (lambda: fv.load("example:convx"), "example:convx failed: ValueError"),
        (lambda: fv.load("example:conv3", depth=1), "unexpected keyword argument 'depth'"),
        (lambda: fv.transforms.parse("not_one"), "must be a concrete subclass of Transform"),
        (lambda: fv.transforms.parse("dimm"), "did you mean 'dim'"),
        (lambda: fv.param.parse("grey"), "did you mean 'gray'"),
    ],
)
def test_problems_are_one_line(package, call, answer):
    with pytest.raises(fv.FeatvizError) as error:
        call()
    assert answer in str(error.value)
    assert "\n" not in str(error.value)


def test_without_plugins_nothing_changes():
    assert plugins.find(plugins.TRANSFORMS, "nothing_of_the_kind") is None
    assert "dim" not in NAMES
