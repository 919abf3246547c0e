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


class Swapped(torch.nn.Module):
    """Returns maps with the units last, and a half-precision network's neighbour."""

    def forward(self, x):
        return x.movedim(1, -1)


def test_declared_axes_and_other_networks_come_along():
    adapter = torch.nn.BatchNorm2d(3)
    first = fv.Model(nets.seeded(lambda: nets.Small(3)), size=8, call=lambda n, x: n(adapter(x)))
    second = fv.Model(Swapped(), size=8, axes={"output": 3})
    both = fv.recipes.together(a=first, b=second)
    before = adapter.running_mean.clone()
    images = torch.rand(2, 3, 8, 8)
    found = both(images)
    assert torch.equal(adapter.running_mean, before)
    assert adapter.training
    torch.testing.assert_close(found["a"], first(images))
    assert both.layer("output[b]").axis == 3
    assert both.layer("output[b]").units == 3


def test_each_network_has_its_own_precision():
    half = fv.Model(nets.seeded(lambda: nets.Small(3)).bfloat16(), size=8)
    full = fv.Model(nets.seeded(lambda: nets.Small(3), 1), size=8)
    images = torch.rand(2, 3, 8, 8)
    for models in ({"a": half, "b": full}, {"b": full, "a": half}):
        found = fv.recipes.together(**models)(images)
        assert torch.equal(found["b"], full(images))
        assert torch.equal(found["a"], half(images))


def test_a_layer_that_is_called_like_the_output():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.output_proj = torch.nn.Linear(3, 4)

        def forward(self, x):
            return self.output_proj(x.mean((2, 3))) * 2

    first = fv.Model(nets.seeded(Net), size=8, logits="output_proj")
    both = fv.recipes.together(a=first, b=fv.Model(nets.seeded(Net, 1), size=8))
    assert both.logits == "a.output_proj"
    images = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(fv.class_logit(1)(both, images), fv.class_logit(1)(first, images))
