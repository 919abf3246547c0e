"""Sort matching of what is relevant to a unit, by hand on a network that can be read."""

import numpy as np
import pytest
import torch
from torch import nn

import featviz as fv
from featviz.objectives.relevant_match import Relevant


class Mixed(nn.Module):
    """Three channels of one image each; the unit sees the first two, one of them weakly."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 3, 1)
        self.act = nn.ReLU()
        self.unit = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.features.weight.copy_(torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1, 1))
            self.features.bias.zero_()
            self.unit.weight.copy_(torch.tensor([[1.0, 0.25, 0], [0, 0, 1]]).view(2, 3, 1, 1))

    def forward(self, x):
        return self.unit(self.act(self.features(x)))


@pytest.fixture
def mixed() -> fv.Model:
    return fv.Model(Mixed(), mean=0, std=1, size=4, channels=1)


def expected(shown: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Minus the weighted distance of sorted r * a; r is a * w over the largest in the channel."""
    gains, weights = np.array([1.0, 2.0, 4.0]), np.array([1.0, 0.25, 0.0])
    # The unit's mean over 16 positions is what is differentiated.
    a, b = (x.reshape(len(x), 1, 16) * gains[:, None] for x in (shown, real))
    ra_relevance, rb_relevance = (x * weights[:, None] / 16 for x in (a, b))
    share = [
        np.divide(
            r, r.max(2, keepdims=True), out=np.zeros_like(r), where=r.max(2, keepdims=True) > 0
        )
        for r in (ra_relevance, rb_relevance)
    ]
    wanted = np.sort(share[1] * b, axis=2).mean(0)
    importance = rb_relevance.max(2).mean(0)
    importance = importance / importance.max()
    found = np.sort(share[0] * a, axis=2)
    return -(((found - wanted) ** 2).mean(2) * importance).mean(1)


def pictures(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_relevance_by_hand(mixed):
    real, shown = pictures(3, 0), pictures(2, 1)
    goal = fv.sort_match("act", real, of=fv.channel("unit", 0))
    wanted = expected(shown.double().numpy(), real.double().numpy())
    np.testing.assert_allclose(goal(mixed, shown).detach(), wanted, rtol=1e-4)
    with torch.no_grad():  # the gradient is taken where none is recorded
        np.testing.assert_allclose(goal(mixed, shown), wanted, rtol=1e-4)


def test_what_the_unit_does_not_see_does_not_count(mixed):
    class Other(Mixed):
        def __init__(self) -> None:
            super().__init__()
            with torch.no_grad():
                self.features.weight[2] = -3

    other = fv.Model(Other(), mean=0, std=1, size=4, channels=1)
    real, shown = pictures(2, 0), pictures(2, 1)
    relevant = fv.sort_match("act", real, of="channel:unit:0")
    plain = fv.sort_match("act", real)
    torch.testing.assert_close(relevant(mixed, shown), relevant(other, shown))
    assert not torch.allclose(plain(mixed, shown), plain(other, shown))


def test_the_picture_itself_is_a_perfect_match(lite0, photos):
    goal = fv.sort_match("_blocks.6", photos[:1], of="class:285")
    values = goal(lite0, photos).detach()
    assert abs(values[0]) < 1e-6
    assert (values[1:] < -1e-3).all()
    assert isinstance(goal, Relevant)
    assert fv.objective(str(goal)) == goal


def test_each_sample_is_relevant_for_its_own_objective(lite0, photos):
    goals = [fv.sort_match("_blocks.6", photos[:2], of=unit) for unit in ("class:285", "class:967")]
    alone = torch.cat([goal(lite0, photos[2:3]) for goal in goals])
    both = fv.objective(goals)(lite0, photos[2:3].expand(2, -1, -1, -1))
    torch.testing.assert_close(both, alone, rtol=1e-3, atol=1e-5)


def test_rendering_draws_towards_the_pictures(lite0, photos):
    goal = fv.sort_match("_blocks.4", photos[:1], of="channel:_blocks.6:3")
    result = fv.render(lite0, goal, steps=24, size=64, quality="fast")
    assert result.history[-1] > result.history[0] + 0.1
    assert result.scores.isfinite().all()


@pytest.mark.parametrize("options", [{}, {"precision": "bf16"}, {"batch_size": 2}, {"coarse": 0}])
def test_several_seeds_of_a_long_run(mixed, options):
    """The loop passes merged, split and cast activations to objectives."""
    goal = fv.sort_match("act", pictures(3, 0), of="channel:unit:0")
    result = fv.render(mixed, goal, seed=[0, 1, 2, 3], steps=40, transforms=(), **options)
    assert (result.scores > result.history[0] - 1e-3).all()
    alone = fv.render(mixed, goal, seed=2, steps=40, transforms=(), **options)
    torch.testing.assert_close(result.images[2:3], alone.images, atol=2e-2, rtol=0)


def test_a_network_in_half_precision(mixed):
    half = fv.Model(Mixed().half(), mean=0, std=1, size=4, channels=1)
    goal = fv.sort_match("act", pictures(2, 0), of="channel:unit:0")
    shown = pictures(2, 1)
    torch.testing.assert_close(
        goal(half, shown).detach().float(), goal(mixed, shown).detach(), rtol=2e-2, atol=1e-4
    )


def test_the_scale_of_the_objective_does_not_matter(mixed):
    goals = [fv.sort_match("act", pictures(2, 0), of=f"{c}*channel:unit:0") for c in (1, 1e-11)]
    values = [goal(mixed, pictures(2, 1)).detach() for goal in goals]
    torch.testing.assert_close(values[1], values[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("layer", ["input", "act"])
def test_gradients_are_taken_in_inference_mode_too(mixed, layer):
    goal = fv.sort_match(layer, pictures(2, 0), of="channel:unit:0")
    wanted = goal(mixed, pictures(2, 1)).detach()
    with torch.inference_mode():
        torch.testing.assert_close(goal(mixed, pictures(2, 1)), wanted)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: fv.sort_match("unit", p, of="channel:act:1"), "does not depend on layer 'unit'"),
        (lambda p: fv.sort_match("act", p, of=fv.diversity("unit")), "objective of single samples"),
        (lambda p: fv.sort_match("act", p, of=["channel:unit:0", "channel:unit:1"]), "a list of relevant"),
        (lambda p: fv.objective("relevant(class:1, class:2)"), "takes a sort_match"),
        (lambda p: fv.sort_match("act", p * 0, of="channel:unit:0"), "no activation of layer 'act' is relevant"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(mixed, make, message):
    with pytest.raises(fv.FeatvizError, match=message):
        make(pictures(2, 0))(mixed, pictures(1, 1))
