"""Facets of a unit of two colours, and a photograph whose red is exaggerated."""

import pytest
import torch
from torch import nn

import featviz as fv

#: Plain gradient steps: Adam would move all colours alike, however strong their gradients.
PLAIN = {
    "transforms": "none",
    "quality": "fast",
    "param": "pixel:color=none",
    "redirect": 0,
    "steps": 10,
    "optimizer": torch.optim.SGD,
    "lr": 5.0,
}


class TwoColours(nn.Module):
    """A unit that responds to red as to green."""

    def __init__(self):
        super().__init__()
        self.look = nn.Conv2d(3, 3, 1, bias=False)
        self.look.weight = nn.Parameter(torch.eye(3)[..., None, None])

    def forward(self, x):
        seen = self.look(x)
        return (seen[:, 0] + seen[:, 1]).square().mean((1, 2))[:, None]


@pytest.fixture
def model():
    return fv.Model(TwoColours(), size=8)


def colours(result):
    return result.images[0].mean((1, 2)).tolist()


@pytest.mark.parametrize(("probe", "preferred"), [([1.0, 0, 0], 0), ([0, 1.0, 0], 1)])
def test_a_facet_is_preferred(model, probe, preferred):
    unit = fv.objective("class:0")
    plain = colours(fv.render(model, unit, **PLAIN))
    goal = fv.recipes.faceted(unit, "look", probe, weight=10)
    made = colours(fv.render(model, goal, **PLAIN))
    assert abs(plain[0] - plain[1]) < 0.05
    assert made[preferred] > made[1 - preferred] + 0.1


def test_the_value_is_that_of_the_paper(model):
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    goal = fv.recipes.faceted("class:0", "look", [0, 2.0, 0], weight=3)
    found = goal(model, images.requires_grad_())
    total = images[:, 0] + images[:, 1]
    slopes = 2 * total / 64  # of the unit by either colour
    expected = total.square().mean((1, 2)) + 3 * (images[:, 1] * slopes).sum((1, 2))
    torch.testing.assert_close(found, expected)
    (by_images,) = torch.autograd.grad(found.sum(), images)
    # The slopes are taken as given: the facet's part is linear in the activation.
    torch.testing.assert_close(by_images[:, 1], slopes + 3 * slopes)
    with torch.no_grad():
        torch.testing.assert_close(goal(model, images), total.square().mean((1, 2)))


def test_probes_and_layers_that_do_not_fit(model):
    images = torch.rand(1, 3, 8, 8).requires_grad_()
    with pytest.raises(fv.FeatvizError, match="direction has 2 numbers, but layer 'look' has 3"):
        fv.recipes.faceted("class:0", "look", [1.0, 2.0])(model, images)
    with pytest.raises(fv.FeatvizError, match="does not depend on layer 'output'"):
        fv.recipes.faceted("channel:look:0", "output", [1.0])(model, images)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_several_seeds_of_a_long_run(model, precision):
    """The loop merges, splits and casts what objectives read."""
    goal = fv.recipes.faceted("class:0", "look", [1.0, 0, 0], weight=10)
    options = {**PLAIN, "steps": 40, "lr": 0.5, "precision": precision}
    together = fv.render(model, goal, seed=[0, 1, 2, 3], **options)
    alone = fv.render(model, goal, seed=2, **options)
    torch.testing.assert_close(together.images[2:3], alone.images, atol=2e-2, rtol=0)
    means = together.images.mean((2, 3))
    assert (means[:, 0] > means[:, 1] + 0.02).all()


def test_a_facet_is_written_in_the_language(model):
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    goal = fv.recipes.faceted("class:0", "look", [0, 2.0, 0], weight=3)
    assert str(goal) == "faceted(class:0, direction:look:[0,2,0], 3)"
    assert fv.objective(str(goal)) == goal
    assert fv.objective("faceted(class:0, direction:look:[0,1,0])").weight == 10
    torch.testing.assert_close(fv.objective(str(goal))(model, images), goal(model, images))
    assert goal.layers == ("look", "output")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("faceted(class:0)", "faceted takes an objective, a direction and a weight"),
        ("faceted(class:0, direction:look:[1,0,0], class:1)", "faceted takes an objective, a dir"),
        ("faceted(class:0, channel:look:1)", "a facet is a direction:LAYER:VECTOR without options"),
        ("faceted(class:0, direction:look:[1,0,0]:measure=cosine)", "without options"),
        ("faceted(diversity:look, direction:look:[1,0,0])", "objective of single samples"),
        ("faceted(class:0, direction:look:[1,0,0], -1)", "weight must not be negative"),
    ],
)
def test_texts_that_are_no_facets(text, problem):
    with pytest.raises(fv.FeatvizError, match=problem):
        fv.objective(text)


def test_a_photograph_is_accentuated_and_stays_what_it_is(lite0, photos):
    options = {"steps": 12, "transforms": "none", "prior": 0}
    goal = fv.class_logit(285)
    kept = fv.feature_match("_blocks.2", photos[0])
    before = float(goal(lite0, photos[:1]))
    scores = {}
    for strength in (0, 20):
        made = fv.recipes.accentuate(
            lite0, photos[:1], goal, "_blocks.2", strength=strength, **options
        )
        with torch.no_grad():
            scores[strength] = float(goal(lite0, made.images)), float(kept(lite0, made.images))
    assert scores[20][0] > before + 1
    assert scores[20][1] > scores[0][1]  # nearer to the photograph
