"""Two networks as one: each is what it is alone, and an objective can set one against the other."""

import pytest
import torch

import featviz as fv
from tests import nets


@pytest.fixture
def pair():
    first = fv.Model(
        nets.seeded(lambda: nets.Small(3)), mean=0.5, std=0.25, size=8, classes=("a", "b", "c")
    )
    second = fv.Model(nets.seeded(lambda: nets.Small(3), 1), mean=0.2, std=0.5, size=8)
    return first, second


def test_each_network_is_what_it_is_alone(pair):
    both = fv.recipes.together(old=pair[0], new=pair[1])
    images = torch.rand(2, 3, 8, 8)
    goal = fv.channel("new.second", 1) - 2 * fv.channel("output[old]", 0) + fv.class_logit("b")
    values = [
        fv.channel("second", 1)(pair[1], images),
        fv.class_logit(0)(pair[0], images),
    ]
    expected = values[0] - 2 * values[1] + fv.class_logit(1)(pair[0], images)
    torch.testing.assert_close(goal(both, images), expected)


def test_one_goes_up_while_the_other_goes_down(pair):
    both = fv.recipes.together(old=pair[0], new=pair[1])
    goal = fv.channel("output[new]", 1) - fv.channel("output[old]", 1)
    made = fv.render(both, goal, steps=60, transforms="none", lr=0.1)
    alone = [fv.class_logit(1)(model, made.images) for model in pair]
    torch.testing.assert_close(made.scores, alone[1] - alone[0])
    random = torch.rand(500, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert made.scores > goal(both, random).max()
    assert all(not list(m._forward_hooks) for net in pair for m in net.net.modules())


def test_networks_that_do_not_go_together(pair):
    with pytest.raises(fv.FeatvizError, match="together takes several models by name"):
        fv.recipes.together(old=pair[0])
    with pytest.raises(fv.FeatvizError, match="new takes 2 channels"):
        fv.recipes.together(old=pair[0], new=nets.tiny())


@pytest.mark.parametrize("level", [0.2, 0.4])
def test_a_unit_is_held_at_a_level(pair, level):
    """Algebra does it: the recipe is a line of the docs."""
    unit = fv.channel("first", 1)
    made = fv.render(pair[0], -((unit - level) ** 2), steps=120, transforms="none", lr=0.05)
    assert float(unit(pair[0], made.images)) == pytest.approx(level, abs=0.02)
