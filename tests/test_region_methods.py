"""RISE, XRAI and its segments, and FullGrad: against plain loops, closed forms, scikit-image."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv
from featviz.attribution.baselines import grid
from featviz.attribution.random_masks import random_masks
from featviz.attribution.segmentation import segment
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.seeds import generator
from tests import nets
from tests.test_attribute import CLASS, pictures


def linear(size=(8, 12)):
    net = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(size[0] * size[1], 2)))
    return fv.Model(net, size=size, channels=1, mean=0.0, std=1.0)


def test_random_masks():
    rng = generator(1, "masks")
    masks = random_masks((30, 45), 6, 400, rng)
    assert masks.shape == (400, 30, 45)
    assert 0 <= masks.min() <= masks.max() <= 1
    assert (masks.mean(0) - 0.5).abs().max() < 0.12  # no edge or corner is preferred
    assert masks.mean(0).std() < 0.04
    half = ((masks > 0.25) & (masks < 0.75)).float().mean()
    assert 0.2 < half < 0.7  # cells have soft edges


def test_rise_is_the_regression_of_the_value_on_the_visibility():
    model, x = nets.tiny(), pictures(1)
    made = fv.attribute(
        model, x, CLASS, method="rise", steps=37, cells=4, seed=6, baseline="black", batch_size=5
    )
    masks = random_masks((8, 10), 4, 37, generator(6, "rise"))
    values = torch.stack([model(x * m)[0, 1] for m in masks]).detach().double()
    want = torch.zeros(8, 10, dtype=torch.float64)
    for row in range(8):
        for column in range(10):
            m = masks[:, row, column].double()
            want[row, column] = torch.cov(torch.stack([m, values]))[0, 1] / m.var()
    torch.testing.assert_close(made.attributions[0, 0].double(), want, rtol=1e-3, atol=1e-6)


def test_lime_is_the_weighted_ridge_regression():
    model, x = nets.tiny(), pictures(1)
    given = {"steps": 60, "cells": 3, "seed": 4, "baseline": "mean", "batch_size": 7}
    made = fv.attribute(model, x, CLASS, method="lime", **given)
    labels = grid((8, 10), 3)
    count = int(labels.max()) + 1
    z = torch.rand(60, count, generator=generator(4, "lime")) < 0.5
    z[0] = True
    base = x.mean((2, 3), keepdim=True).expand_as(x)
    values = torch.cat([model(torch.where(row[labels], x, base))[:, 1] for row in z])
    z, y = z.double().numpy(), values.detach().double().numpy()
    cosine = z.sum(1) / np.maximum(np.sqrt(z.sum(1)) * np.sqrt(count), 1e-12)
    weights = np.sqrt(np.exp(-((1 - cosine) ** 2) / 0.25**2))[:, None]
    # As rows of one least-squares problem: the sets, and a row of each coefficient for the ridge.
    rows = np.concatenate([weights * np.c_[z, np.ones(60)], np.eye(count, count + 1)])
    right = np.concatenate([weights[:, 0] * y, np.zeros(count)])
    want = np.linalg.lstsq(rows, right, rcond=None)[0][:count]
    np.testing.assert_allclose(
        made.attributions[0, 0], torch.from_numpy(want)[labels], rtol=1e-3, atol=1e-6
    )
    with pytest.raises(FeatvizError, match=f"more steps than its {count} regions, not {count}"):
        fv.attribute(model, x, CLASS, method="lime", cells=3, steps=count)


def test_prediction_difference_of_a_linear_network():
    model = linear((8, 12))
    x = pictures(1, 1, (8, 12))
    made = fv.attribute(model, x, CLASS, method="prediction_difference", cells=6, steps=3000)
    w = model.net[1].weight[1].detach().view(8, 12)
    # Expected drop of a window: w · (its content - the mean content of the other windows)
    windows = x[0, 0].unfold(0, 4, 1).unfold(1, 4, 1)  # (5, 9, 4, 4)
    total, covers = torch.zeros(8, 12), torch.zeros(8, 12)
    for top in (0, 2, 4):
        for left in (0, 2, 4, 6, 8):
            others = (windows.sum((0, 1)) - windows[top, left]) / 44
            area = slice(top, top + 4), slice(left, left + 4)
            drop = (w[area] * (windows[top, left] - others)).sum()
            total[area] += drop
            covers[area] += 1
    torch.testing.assert_close(made.attributions[0, 0], total / covers, rtol=0, atol=0.015)
    assert (total / covers).abs().max() > 0.1
    with pytest.raises(FeatvizError, match="more than one window"):
        fv.attribute(model, x, CLASS, method="prediction_difference", cells=1)


def test_rise_does_not_depend_on_a_constant():
    model, x = nets.tiny(), pictures(1)
    given = {"method": "rise", "steps": 40, "cells": 4}
    made = fv.attribute(model, x, CLASS, **given)
    shifted = fv.attribute(model, x, CLASS + 100, **given)
    torch.testing.assert_close(shifted.attributions, made.attributions, rtol=0, atol=1e-3)
    with pytest.raises(FeatvizError, match="rise needs at least 2 steps"):
        fv.attribute(model, x, CLASS, method="rise", steps=1)


def test_rise_of_a_volume_and_a_signal():
    for axes in (1, 3):
        model = nets.tiny(axes)
        x = torch.rand(1, 2, *(8,) * axes, generator=torch.Generator().manual_seed(2))
        made = fv.attribute(model, x, CLASS, method="rise", steps=20, cells=3)
        assert made.attributions.shape == (1, 1, *(8,) * axes)
        assert made.attributions.any()


class Everything(nn.Module):
    """Convolution, batch-norm, ReLU6 that saturates, a branch, in-place ReLU, pooling, linear."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)
        with torch.no_grad():
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.05, 0.1)
            self.norm.bias.fill_(3.0)

    def forward(self, x):
        x = F.relu6(self.norm(self.first(x)), inplace=True)
        y = self.second(x)
        y += x
        return self.head(F.max_pool2d(F.relu(y, inplace=True), 2).mean((2, 3)))


def test_full_gradients_add_up_to_the_objective():
    torch.manual_seed(0)
    net = nets.seeded(Everything)
    model = fv.Model(net, size=(8, 12), channels=2, mean=(0.4, 0.5), std=0.25)
    x = pictures(3, 2, (8, 12))
    before = model(x)
    made = fv.attribute(model, x, CLASS, method="full_grad")
    total = torch.tensor(made.settings["full_gradient"])
    torch.testing.assert_close(total, made.scores, rtol=1e-4, atol=1e-4)
    assert (net.eval().norm(net.first((x - 0.45) / 0.25)) > 6).any()
    assert torch.equal(model(x), before)
    assert (made.attributions >= 0).all()


def test_full_grad_is_the_sum_of_the_layers():
    model, x = nets.tiny(), pictures(1)
    net = model.net
    made = fv.attribute(model, x, CLASS, method="full_grad")
    seen = ((x - 0.5) / 0.25).requires_grad_()
    first = F.conv2d(seen, net.first.weight, net.first.bias, padding=1)
    second = F.conv2d(first.relu(), net.second.weight, net.second.bias, 2, 1)
    value = net.head(second.mean((2, 3)))[0, 1]
    slopes = torch.autograd.grad(value, [seen, first, second])
    terms = [
        seen * slopes[0],
        net.first.bias.view(1, -1, 1, 1) * slopes[1],
        net.second.bias.view(1, -1, 1, 1) * slopes[2],
    ]
    want = torch.zeros(8, 10)
    for term in terms:
        size = term.abs()
        size = (size - size.min()) / (size.max() - size.min()) if size.max() > size.min() else size
        resized = F.interpolate(size, (8, 10), mode="bilinear", align_corners=False)
        want += resized.sum((0, 1)).detach()
    # ReLU adds a layer of its own, whose bias is zero everywhere.
    torch.testing.assert_close(made.attributions[0, 0], want, rtol=1e-4, atol=1e-5)


def test_full_grad_says_what_it_leaves_out():
    with pytest.warns(FeatvizWarning, match="whose share is missing"):
        fv.attribute(nets.tiny(), pictures(1), "probability:1", method="full_grad")


def test_full_grad_of_the_predicted_class_of_a_photograph_is_complete(lite0, photos):
    made = fv.attribute(lite0, photos[:1], method="full_grad")
    assert made.settings["full_gradient"] == pytest.approx(made.scores.item(), rel=1e-3)


def partition(labels):
    """Which pixels share a segment with the one before: independent of the numbering."""
    flat = labels.flatten()
    return flat[:, None] == flat[None]


@pytest.mark.parametrize(("scale", "least"), [(50, 1), (300, 1), (300, 12), (2000, 5)])
def test_segments_are_those_of_scikit_image(scale, least):
    segmentation = pytest.importorskip("skimage.segmentation")
    image = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(4))
    image[:, :8] *= 0.2
    found = segment(image, scale=scale, least=least, sd=0)
    array = image.permute(1, 2, 0).double().numpy()
    want = segmentation.felzenszwalb(array, scale=scale, sigma=0, min_size=least)
    assert torch.equal(partition(found), partition(torch.from_numpy(want)))
    assert 1 < len(found.unique()) < found.numel()
    assert found.max() + 1 == len(found.unique())
    assert found.unique(return_counts=True)[1].min() >= least


def test_segments_are_the_planted_areas():
    image = torch.zeros(3, 24, 24)
    image[0, :, 12:], image[1, 12:] = 0.8, 0.6
    labels = segment(image, scale=100, sd=0)
    assert len(labels.unique()) == 4
    assert all(len(labels[a:b, c:d].unique()) == 1 for a, b in ((0, 11), (13, 24))
               for c, d in ((0, 11), (13, 24)))  # fmt: skip


def test_xrai_of_given_segments_is_their_mean():
    model, x = linear(), pictures(1, 1, (8, 12))
    labels = torch.arange(96).view(8, 12) // 16
    made = fv.attribute(model, x, CLASS, method="xrai", segments=labels, steps=3)
    w = model.net[1].weight[1].detach().view(8, 12)
    shares = (w * x[0, 0] + w * (x[0, 0] - 1)) / 2  # from black and from white
    want = torch.stack([shares[labels == i].mean() for i in range(6)])[labels]
    torch.testing.assert_close(made.attributions[0, 0], want, rtol=1e-4, atol=1e-6)


def test_xrai_adds_the_densest_region_first():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2, bias=False))
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].weight.view(2, 3, 32, 32)[1, :, 4:14, 4:14] = 1
    model = fv.Model(net, size=(32, 32), mean=0.0, std=1.0)
    x = torch.full((1, 3, 32, 32), 0.6)
    x[:, :, 4:14, 4:14] = torch.tensor([1.0, 0.9, 0.95]).view(1, 3, 1, 1)
    x[:, :, 20:28, 18:30] = torch.tensor([0.1, 0.5, 0.3]).view(1, 3, 1, 1)
    made = fv.attribute(model, x, CLASS, method="xrai", steps=2)
    heat = made.attributions[0, 0]
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[4:14, 4:14] = True
    assert heat[inside].min() > heat[~inside].max() - 1e-6
    assert heat[inside].mean() > 5 * heat[~inside].abs().mean()


def test_xrai_of_other_inputs_needs_segments():
    model, x = nets.tiny(1), torch.rand(1, 2, 8)
    with pytest.raises(FeatvizError, match="give segments for other inputs"):
        fv.attribute(model, x, CLASS, method="xrai")
    made = fv.attribute(model, x, CLASS, method="xrai", segments=torch.arange(8) // 2)
    assert made.attributions.any()
