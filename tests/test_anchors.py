"""Anchors on networks whose rule is planted."""

import math

import pytest
import torch
from torch import nn

import featviz as fv
from featviz.attribution.anchors import _bound, anchor
from featviz.errors import FeatvizError

SEGMENTS = torch.arange(9).view(3, 3).repeat_interleave(4, 0).repeat_interleave(4, 1)


class Rule(nn.Module):
    """Class 1 where a rule about which of nine segments are bright is met."""

    def __init__(self, rule):
        super().__init__()
        self.pool = nn.AvgPool2d(4)
        self.rule = rule

    def forward(self, x):
        bright = self.pool(x).flatten(1) - 0.5
        value = self.rule(bright)
        return torch.stack([-value, value], 1)


def found(rule, **options):
    model = fv.Model(Rule(rule), size=12, channels=1, mean=0.0, std=1.0)
    image = torch.full((1, 12, 12), 0.9)
    return anchor(model, image, segments=SEGMENTS, baseline="black", **options)


def test_the_segment_that_decides():
    made = found(lambda b: b[:, 4])
    assert (made.segments, made.label, made.precision, made.coverage) == ((4,), 1, 1.0, 0.5)
    assert made.holds
    assert torch.equal(made.region, SEGMENTS == 4)
    assert made.bounds[0] >= 0.95 < made.bounds[1]


def test_both_segments_of_a_conjunction():
    made = found(lambda b: torch.minimum(b[:, 2], b[:, 6]))
    assert (made.segments, made.coverage, made.holds) == ((2, 6), 0.25, True)


def test_one_segment_of_a_disjunction():
    made = found(lambda b: torch.maximum(b[:, 2], b[:, 6]))
    assert made.segments in ((2,), (6,))
    assert made.precision == 1


def test_a_constant_class_needs_no_segment():
    made = found(lambda b: b[:, 0] ** 2 + 1)
    assert (made.segments, made.coverage, made.precision) == ((), 1.0, 1.0)
    assert not made.region.any()


def test_a_majority_takes_as_many_as_hold_and_a_short_rule_does_not():
    """Five of nine bright: five shown always suffice, fewer with some probability."""
    rule = lambda b: (b > 0).sum(1) - 4.5  # noqa: E731
    whole = found(rule)
    assert whole.holds
    # With k shown, the class holds if at least 5 - k of the other 9 - k are shown by chance.
    k = len(whole.segments)
    exact = sum(math.comb(9 - k, j) for j in range(max(0, 5 - k), 10 - k)) / 2 ** (9 - k)
    assert exact > 0.95
    assert whole.bounds[0] <= exact <= whole.bounds[1] + 1e-9
    short = found(rule, largest=1)
    assert len(short.segments) <= 1
    assert not short.holds
    assert short.precision < 0.95


def test_other_images_as_the_rest_and_repeatable():
    model = fv.Model(Rule(lambda b: b[:, 4]), size=12, channels=1, mean=0.0, std=1.0)
    image = torch.full((1, 12, 12), 0.9)
    others = torch.rand(5, 1, 12, 12, generator=torch.Generator().manual_seed(0)) * 0.8
    made = [
        anchor(model, image, segments=SEGMENTS, baseline=others, seed=3, batch_size=n)
        for n in (4, 9)
    ]
    assert made[0].segments == made[1].segments == (4,)
    assert made[0].samples == made[1].samples


def test_bounds_of_a_bernoulli_mean():
    for mean, level in ((0.3, 0.02), (0.0, 0.1), (1.0, 0.1)):
        low, high = _bound(mean, level, 0.0), _bound(mean, level, 1.0)
        assert low <= mean <= high
    # Closed form at the ends: the divergence of 1 from q is -log q.
    assert _bound(1.0, 0.1, 0.0) == pytest.approx(math.exp(-0.1))
    assert _bound(0.0, 0.1, 1.0) == pytest.approx(1 - math.exp(-0.1))


@pytest.mark.slow
def test_the_cat_of_chelsea_is_held_by_few_cells(lite0, photos):
    made = anchor(lite0, photos[0], cells=4, precision=0.6, most=48, largest=3)
    assert made.label == 285
    assert 0 < len(made.segments) <= 3
    free = anchor(lite0, photos[0], cells=4, precision=0.01, most=48)
    assert made.precision > free.precision


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": 1.0}, "precision must be between 0 and 1"),
        ({"segments": torch.zeros(3, 3).long()}, "segments must be whole numbers of shape"),
        ({"beam": 0}, "beam must be positive"),
        ({"baseline": "blurry"}, "no baseline 'blurry'"),
    ],
)
def test_bad_arguments_are_one_line(change, message):
    model = fv.Model(Rule(lambda b: b[:, 4]), size=12, channels=1, mean=0.0, std=1.0)
    with pytest.raises(FeatvizError, match=message):
        anchor(model, torch.full((1, 12, 12), 0.9), **change)


def test_a_rule_below_the_precision_seldom_holds():
    """The claim is wrong in at most a tenth of the cases: here 40 trials at 0.93 of 0.95."""

    class Chance(nn.Module):
        """The class of 93 of 100 samples, whatever is shown; of the image itself, always."""

        def forward(self, x):
            noise = (x.flatten(1).double() * torch.arange(1, 145).double().sin() * 1e4).sum(1)
            right = (noise.sin() * 1e4) % 1 < 0.93
            value = torch.where(right | (x > 0.5).flatten(1).all(1), 1.0, -1.0)
            return torch.stack([-value, value], 1)

    model = fv.Model(Chance(), size=12, channels=1, mean=0.0, std=1.0)
    others = torch.rand(200, 1, 12, 12, generator=torch.Generator().manual_seed(0)) * 0.4
    image = 0.6 + 0.3 * torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(1))
    held = sum(
        anchor(model, image, segments=SEGMENTS, baseline=others, largest=1, seed=seed).holds
        for seed in range(40)
    )
    assert held <= 8
