"""What the images are for: slow renders on Lite0, judged by networks and by statistics."""

import json

import pytest
import torch
from torch.nn import functional as F

import featviz as fv
from featviz.cli.main import main
from featviz.io import images
from tests import nets

pytestmark = pytest.mark.slow


def seen_by(name: str, pictures: torch.Tensor) -> torch.Tensor:
    """The class probabilities that a network gives the images, at its own size."""
    model = fv.load(name)
    resized = F.interpolate(pictures, model.size, mode="bilinear", antialias=True)
    with torch.no_grad():
        return model(resized).softmax(1)


def test_the_command_line_renders_classes_that_the_network_is_sure_of(tmp_path, capsys):
    out = tmp_path / "out.png"
    given = ["render", "efficientnet_lite0", "class:285", "class:985", "-o", str(out)]
    assert main([*given, "--steps", "128", "--separate", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    sheet, *files = document["files"]
    assert nets.opened(sheet).size[0] > 2 * 224
    for file, index in zip(files, (285, 985), strict=True):
        pixels = images.read(file, 3)
        assert seen_by("efficientnet_lite0", pixels)[0, index] >= 0.95
        assert seen_by("efficientnet_lite1", pixels).argmax(1).item() == index


def test_the_networks_own_statistics_make_classes_that_others_see(lite0):
    """Lite1 and Lite2 had no part in it."""
    wanted = [285, 207]
    natural = 20 * fv.batchnorm_match()
    result = fv.render(lite0, [fv.class_logit(c) + natural for c in wanted], steps=96)
    for judge in ("efficientnet_lite1", "efficientnet_lite2"):
        found = seen_by(judge, result.images)
        assert (found.argmax(1) == torch.tensor(wanted)).any()
        assert found[range(2), wanted].mean() > 0.4


def test_diversity_makes_pictures_of_one_unit_differ(lite0):
    """Their mean pairwise Gram cosine falls by at least a fifth; the unit still fires."""
    unit, layer, seeds = fv.channel("_blocks.13", 40), "_blocks.7", [0, 1, 2]
    given = {"seed": seeds, "steps": 96, "size": 128}
    plain = fv.render(lite0, unit, **given)
    varied = fv.render(lite0, unit + 10 * fv.diversity(layer), **given)
    before, after = (-fv.diversity(layer)(lite0, r.images).mean() for r in (plain, varied))
    assert after <= 0.8 * before
    assert unit(lite0, varied.images).mean() > 0.5 * unit(lite0, plain.images).mean()
