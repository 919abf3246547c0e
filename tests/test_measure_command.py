"""The table of methods by measures, and the command that prints it."""

import json
import math

import pytest
import torch
from PIL import Image

import featviz as fv
from featviz.attribution.baselines import baseline
from featviz.attribution.measures.comparison import CHANCE, MEASURES, compare_methods
from featviz.attribution.measures.heat_statistics import distance, rank_correlation
from featviz.attribution.measures.road import road
from featviz.attribution.measures.weight_cascade import randomized, weighted_layers
from featviz.cli.main import main
from featviz.errors import FeatvizError
from tests import nets
from tests.test_attribute import pictures


def test_rows_are_what_the_measures_say():
    model, x = nets.tiny(channels=3), pictures(3, 3, (16, 16))
    names = ["saliency", "grad_cam", "input_x_gradient"]
    table = compare_methods(model, x, names, seed=5)
    assert list(table.values) == [*names, CHANCE]
    assert not table.failures
    top = model(x).topk(2, 1).indices
    goals, others = ([fv.class_logit(int(c)) for c in column] for column in top.T)
    own = fv.attribute(model, x, goals, method="saliency", seed=5)
    row = table.values["saliency"]
    assert set(row) == set(MEASURES)
    assert all(values.shape == (3,) for values in row.values())
    torch.testing.assert_close(row["deletion"], own.curves(model, steps=14, orders=2).deletion_auc,
                               equal_nan=True)  # fmt: skip
    curves = own.curves(model, steps=14, orders=2)
    chance = curves.random_insertion_auc.mean(1)
    torch.testing.assert_close(table.values[CHANCE]["insertion"], chance, equal_nan=True)
    again = fv.attribute(model, x, goals, method="grad_cam", seed=5).curves(
        model, steps=14, orders=2
    )
    torch.testing.assert_close(curves.random_insertion_auc, again.random_insertion_auc,
                               equal_nan=True)  # fmt: skip
    torch.testing.assert_close(table.values["grad_cam"]["beats_random"],
                               again.beats_random.double())  # fmt: skip
    blurred = torch.stack([g(model, b[None])[0] for g, b in zip(goals, baseline("blur", x),
                                                                strict=True)])  # fmt: skip
    gap = road(own, model, fractions=(0.1, 0.3, 0.5)).gap / (own.scores - blurred).double()
    gap = torch.where(own.scores > blurred, gap, float("nan"))
    torch.testing.assert_close(row["road"], gap, equal_nan=True)
    other = fv.attribute(model, x, others, method="saliency")
    torch.testing.assert_close(row["other_class"], distance(own.pixels, other.pixels))
    shuffled = randomized(model, weighted_layers(model), x, seed=5)
    maps = fv.attribute(shuffled, x, goals, method="saliency").pixels
    torch.testing.assert_close(row["random_network"], rank_correlation(own.pixels, maps))
    mean = row["infidelity"].mean().item()
    assert table.mean("saliency", "infidelity") == pytest.approx(mean)
    line = table.markdown().splitlines()[2]
    assert line.startswith("| `saliency` |")
    assert f"| {mean:.2f} |" in line


def test_methods_that_refuse_the_network_are_named():
    model, x = nets.tiny(channels=3), pictures(2, 3, (16, 16))
    table = compare_methods(model, x, ["saliency", "cam"])
    assert list(table.values) == [
        "saliency",
        "cam",
        CHANCE,
    ]  # the head is linear in the mean of the maps
    flat = fv.Model(
        nets.seeded(lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 3))),
        size=(16, 16),
    )
    table = compare_methods(flat, x, ["saliency", "grad_cam"])
    assert list(table.values) == ["saliency", CHANCE]
    assert "needs one; use another method" in table.failures["grad_cam"]
    assert "\n`grad_cam`: no layer that" in table.markdown()
    few = compare_methods(flat, x, ["saliency"], measures=["seconds", "sparseness"])
    assert list(few.values) == ["saliency"]
    assert list(few.values["saliency"]) == ["sparseness", "seconds"]
    assert few.markdown().splitlines()[0] == "| method | sparseness | seconds ↓ |"
    with pytest.raises(FeatvizError, match="no measure 'rode'; did you mean 'road'"):
        compare_methods(flat, x, measures=["rode"])
    with pytest.raises(FeatvizError, match="no method 'salency'; did you mean 'saliency'"):
        compare_methods(flat, x, ["salency"])


def test_the_command(capsys, tmp_path):
    for i, x in enumerate(pictures(3, 3, (64, 64))):
        pixels = (255 * x).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    call = ["measure", "efficientnet_lite0", str(tmp_path), "--methods", "saliency", "--size", "64"]
    assert main([*call, "--count", "2", "--samples", "4", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [p[-5:] for p in document["images"]] == ["0.png", "1.png"]
    row = document["values"]["saliency"]
    assert set(row) == set(MEASURES)
    assert all(len(values) == 2 for values in row.values())
    assert all(v is None or math.isfinite(v) for values in row.values() for v in values)
    assert main(["measure", "efficientnet_lite0", "-q"]) == 2
    assert "give images, or a folder of images" in capsys.readouterr().err
