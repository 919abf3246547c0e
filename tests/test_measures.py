"""Measures of maps: against scipy, scikit-image, captum, and closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import featviz as fv
from featviz.attribution.baselines import grid
from featviz.attribution.measures import heat_statistics as stats
from featviz.attribution.measures.class_sensitivity import class_sensitivity
from featviz.attribution.measures.faithfulness import _squares, infidelity, sensitivity_n
from featviz.attribution.measures.road import impute, road
from featviz.attribution.measures.stability import input_invariance, stability
from featviz.attribution.measures.weight_cascade import cascade, randomized, weighted_layers
from featviz.errors import FeatvizError
from featviz.seeds import generator
from tests import nets
from tests.test_attribute import CLASS, pictures


def maps(count=3, size=(12, 15), seed=0):
    return torch.randn(count, *size, generator=torch.Generator().manual_seed(seed))


def test_concentration_of_maps():
    point, flat = torch.zeros(1, 4, 5), torch.full((1, 4, 5), -2.0)
    point[0, 2, 3] = -7
    assert stats.complexity(point) == 0
    assert stats.complexity(flat).item() == pytest.approx(math.log(20))
    assert stats.sparseness(point).item() == pytest.approx(1 - 1 / 20)
    assert stats.sparseness(flat).item() == pytest.approx(0, abs=1e-12)
    some = torch.tensor([[[1.0, 3.0, 0.0, -4.0]]])
    pairs = sum(abs(a - b) for a in (1, 3, 0, 4) for b in (1, 3, 0, 4))
    assert stats.sparseness(some).item() == pytest.approx(pairs / (2 * 4 * 8))
    assert stats.complexity(torch.zeros(1, 2, 2)).isnan()


def test_rank_correlation_is_spearmans():
    spearmanr = pytest.importorskip("scipy.stats").spearmanr
    a, b = maps(seed=1), maps(seed=2)
    b[1] = a[1] ** 3  # monotonic
    a[2], b[2] = a[2].round(), (b[2] + a[2]).round()  # many equal values
    found = stats.rank_correlation(a, b)
    want = [spearmanr(x.flatten(), y.flatten())[0] for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, want, rtol=1e-9)
    assert found[1].item() == pytest.approx(1)
    assert stats.rank_correlation(a, torch.ones_like(a)).isnan().all()


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    a, b = maps(seed=3).clamp(-1, 1), maps(seed=4).clamp(-1, 1)
    b[1] = 0.9 * a[1] + 0.1 * b[1]
    want = []
    for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True):
        _, each = metrics.structural_similarity(x, y, win_size=7, data_range=2.0, full=True)
        want.append(each[3:-3, 3:-3].mean())
    np.testing.assert_allclose(stats.ssim(a, b), want, rtol=1e-9)
    torch.testing.assert_close(stats.ssim(a, a), torch.ones(3, dtype=torch.float64))
    with pytest.raises(FeatvizError, match="smaller than 7 pixels"):
        stats.ssim(a[:, :3], b[:, :3])


def test_distance_of_maps():
    a = torch.tensor([[[3.0, 0.0]], [[1.0, 0.0]], [[2.0, 0.0]]])
    b = torch.tensor([[[9.0, 0.0]], [[0.0, 5.0]], [[-1.0, 0.0]]])
    want = torch.tensor([0, math.sqrt(2), 2], dtype=torch.float64)
    torch.testing.assert_close(stats.distance(a, b), want)
    with pytest.raises(FeatvizError, match=r"maps .* of one shape are compared"):
        stats.distance(a, b[:1])


def test_pointing_game():
    heat, mask = torch.zeros(3, 10, 10), torch.zeros(3, 10, 10)
    mask[:, 2:4, 2:4] = 1
    heat[0, 3, 3] = heat[1, 3, 6] = 5
    heat[2, 2, 2] = heat[2, 9, 9] = 1
    assert stats.pointing(heat, mask).tolist() == [1, 0, 0.5]
    assert stats.pointing(heat, mask, tolerance=3).tolist() == [1, 1, 0.5]
    assert stats.pointing(heat, mask, tolerance=2.9).tolist() == [1, 0, 0.5]
    with pytest.raises(FeatvizError, match="one is empty"):
        stats.pointing(heat, 0 * mask)


def test_localization_is_the_average_precision():
    heat, mask = maps(4).round(decimals=1), maps(4, seed=9) > 0.8  # with equal values
    found = stats.localization(heat, mask)
    for h, m, value in zip(heat.flatten(1), mask.flatten(1), found, strict=True):
        area, before = 0.0, 0.0
        for threshold in sorted(set(h.tolist()), reverse=True):
            chosen = h >= threshold
            recall = (m & chosen).sum().item() / m.sum().item()
            area += (recall - before) * (m & chosen).sum().item() / chosen.sum().item()
            before = recall
        assert value.item() == pytest.approx(area)
    assert stats.localization(mask.float(), mask).tolist() == [1] * 4
    constant = stats.localization(torch.ones_like(heat), mask)
    torch.testing.assert_close(constant, mask.double().flatten(1).mean(1))


def linear(seed=0, size=(8, 12)):
    net = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(math.prod(size), 2)), seed)
    return fv.Model(net, size=size, channels=1, mean=0.0, std=1.0)


@pytest.mark.parametrize("unit", [1, 7.0])
def test_shares_of_a_linear_network_are_faithful(unit):
    model, x = linear(), pictures(2, 1, (8, 12))
    result = fv.attribute(model, x, CLASS, method="integrated_gradients", baseline="black")
    result.attributions = result.attributions * unit
    exact = sensitivity_n(result, model, cells=6, baseline="black")
    assert exact.shape == (2, 4)
    torch.testing.assert_close(exact, torch.ones(2, 4, dtype=torch.float64), rtol=1e-5, atol=0)
    assert (infidelity(result, model, baseline="black") < 1e-8).all()
    result.attributions = -result.attributions
    assert (sensitivity_n(result, model, cells=6, baseline="black") < -0.999).all()


def test_noise_is_not_faithful():
    model, x = linear(1), pictures(2, 1, (8, 12))
    result = fv.attribute(model, x, CLASS, method="saliency")
    result.attributions = maps(2, (8, 12), seed=5)[:, None]
    assert (sensitivity_n(result, model, samples=64, cells=6).abs().mean() < 0.5).all()
    assert (infidelity(result, model) > 0.5).all()
    result.attributions = torch.zeros_like(result.attributions)
    torch.testing.assert_close(infidelity(result, model), torch.ones(2, dtype=torch.float64))
    assert sensitivity_n(result, model, cells=6).isnan().all()


def test_sensitivity_n_removes_cells():
    model, x = nets.tiny(), pictures(1)
    result = fv.attribute(model, x, CLASS, method="input_x_gradient", seed=3)
    found = sensitivity_n(result, model, fractions=[0.25], samples=9, cells=5, baseline="mean")
    labels = grid((8, 10), 5)
    count = int(labels.max()) + 1
    rng = generator(3, f"sensitivity_n:{round(count / 4)}")
    base = x.mean((2, 3), keepdim=True).expand_as(x)
    sums, drops = [], []
    for _ in range(9):
        gone = (torch.randperm(count, generator=rng) < round(count / 4))[labels]
        sums.append(result.pixels[0][gone].sum().item())
        drops.append((model(x) - model(torch.where(gone, base, x)))[0, 1].item())
    assert found.item() == pytest.approx(np.corrcoef(sums, drops)[0, 1], rel=1e-4)


def test_infidelity_is_captums():
    metrics = pytest.importorskip("captum.metrics")
    model, x = nets.tiny(), pictures(1)
    result = fv.attribute(model, x, CLASS, method="input_x_gradient", seed=3)
    squares = _squares((8, 10), 40, 3)
    masks = squares[:, None].float().expand(-1, 2, -1, -1)

    def perturb(images, baselines=None):
        # captum multiplies the first by the attributions of the image, and explains the second
        return masks, images * (1 - masks)

    with torch.no_grad():
        drops = (model(x) - model(x * (1 - masks)))[:, 1]
        want = metrics.infidelity(
            lambda images: model(images)[:, 1],
            perturb,
            x,
            result.attributions,
            n_perturb_samples=40,
            max_examples_per_batch=40,
            normalize=True,
        )
    found = infidelity(result, model, samples=40, baseline="black")
    assert found.item() == pytest.approx((want / drops.square().mean()).item(), rel=1e-3)


def test_squares_lie_in_the_image():
    squares = _squares((20, 30), 50, 0)
    areas = squares.flatten(1).sum(1)
    assert areas.min() >= 2**2
    assert areas.max() <= 10**2
    assert all(math.isqrt(a) ** 2 == a for a in areas.tolist())
    assert squares.any(0).float().mean() > 0.7


def test_stability():
    model, x = linear(), pictures(2, 1, (8, 12))
    gradient = stability(model, x, CLASS, method="sensitivity")
    assert gradient.sensitivity_max.tolist() == gradient.continuity.tolist() == [0, 0]
    shares = stability(model, x, CLASS, method="input_x_gradient", radius=0.05, samples=6, seed=2)
    w = model.net[1].weight[1].detach().view(8, 12)
    rng, largest = generator(3, "stability"), (0.0, 0.0)  # the second image's seed
    for _ in range(6):
        noise = 2 * torch.rand(1, 8, 12, generator=rng) - 1
        near = (x[1] + 0.05 * noise).clamp(0, 1)
        h, step = (w * x[1, 0]).double(), (w * (near - x[1])[0]).double()
        values = (
            (step.norm() / h.norm()).item(),
            (step.abs().sum() / h.abs().sum() / (near - x[1]).double().norm()).item(),
        )
        largest = tuple(map(max, largest, values))
    assert shares.sensitivity_max[1].item() == pytest.approx(largest[0], rel=1e-4)
    assert shares.continuity[1].item() == pytest.approx(largest[1], rel=1e-4)
    with pytest.raises(FeatvizError, match="radius must be positive"):
        stability(model, x, CLASS, radius=0.0)


def test_a_shift_of_the_input_changes_what_the_pixel_values_enter():
    net = nets.seeded(nets.Small)
    model = fv.Model(net, mean=100.0, std=60.0, range=(0, 255), size=(8, 10), channels=2)
    x = pictures(2)
    given = {"shift": 0.25}
    assert (input_invariance(model, x, CLASS, method="saliency", **given) < 1e-4).all()
    assert (input_invariance(model, x, CLASS, method="input_x_gradient", **given) > 0.1).all()
    blur = input_invariance(model, x, CLASS, method="integrated_gradients", baseline="blur")
    black = input_invariance(model, x, CLASS, method="integrated_gradients", baseline="black")
    assert (blur < 1e-3).all()
    assert (black > 0.1).all()
    assert model.mean == (100.0, 100.0)


def test_layers_from_the_output_down():
    assert weighted_layers(nets.tiny()) == ["head", "second", "first"]
    with pytest.raises(FeatvizError, match="no layer with weights"):
        weighted_layers(fv.Model(nn.ReLU(), size=(4, 4), channels=1))


class Normalized(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, momentum=0.1)

    def forward(self, x):
        return self.norm(self.conv(x)).relu().mean((2, 3))


def test_randomized_copies():
    net = nets.seeded(Normalized)
    model, x = fv.Model(net, size=(12, 12)), pictures(5, 3, (12, 12))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    changed = randomized(model, ["conv"], x, seed=1)
    state = changed.net.state_dict()
    assert not torch.equal(state["conv.weight"], before["conv.weight"])
    for key in ("conv.weight", "conv.bias"):
        assert torch.equal(state[key].flatten().sort()[0], before[key].flatten().sort()[0])
    assert torch.equal(state["norm.weight"], before["norm.weight"])
    inputs = changed.net.conv(changed.normalize(x)).detach()
    torch.testing.assert_close(state["norm.running_mean"], inputs.mean((0, 2, 3)))
    assert changed.net.norm.momentum == 0.1
    assert changed.net.norm.training == net.norm.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    again = randomized(model, ["conv"], x, seed=1).net.state_dict()
    assert torch.equal(again["conv.weight"], state["conv.weight"])
    with pytest.raises(FeatvizError, match="no layer 'cov'"):
        randomized(model, ["cov"])


class HeadOnly(nn.Module):
    """Its weights scale a fixed map: the map's shape does not depend on them."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Conv2d(1, 1, 1)
        with torch.no_grad():
            self.scale.weight.fill_(2.0)

    def forward(self, x):
        return self.scale(x).square().sum((2, 3))


@pytest.mark.parametrize("kind", ["cascading", "independent"])
def test_cascade(kind):
    model = nets.tiny(channels=3)
    x = pictures(2, 3, (16, 16))
    found = cascade(model, x, CLASS, depths=3, kind=kind, method="input_x_gradient")
    assert found.layers == ["", "head", "second", "first"]
    torch.testing.assert_close(found.fractions, torch.arange(4, dtype=torch.float64) / 3)
    for values in (found.rank_correlation, found.absolute_rank_correlation, found.ssim):
        assert values.shape == (4, 2)
        torch.testing.assert_close(values[0], torch.ones(2, dtype=torch.float64))
    assert (found.rank_correlation[-1] < 0.9).all()
    layers = ["head", "second"] if kind == "cascading" else ["second"]
    changed = randomized(model, layers, x)
    want = fv.attribute(changed, x, CLASS, method="input_x_gradient").pixels
    own = fv.attribute(model, x, CLASS, method="input_x_gradient").pixels
    torch.testing.assert_close(found.rank_correlation[2], stats.rank_correlation(own, want))
    fixed = fv.Model(HeadOnly(), size=(16, 16), channels=1)
    same = cascade(fixed, x[:, :1], "channel:output:0", method="input_x_gradient")
    assert same.rank_correlation[-1].min() > 0.5  # x² whatever the weight
    with pytest.raises(FeatvizError, match="kind must be cascading or independent"):
        cascade(model, x, CLASS, kind="both")


def test_maps_of_two_classes():
    model, x = linear(), pictures(2, 1, (8, 12))
    w = model.net[1].weight.detach()
    found = class_sensitivity(model, x, "class:0", "class:1", method="saliency")
    units = w.abs() / w.norm(dim=1, keepdim=True)
    want = (units[0] - units[1]).norm().double()
    torch.testing.assert_close(found, want.expand(2), rtol=1e-5, atol=0)
    same = class_sensitivity(model, x, "class:0", "class:0", method="saliency")
    assert same.tolist() == [0, 0]
    moved = class_sensitivity(
        model, x, "class:0", "class:0", others=1 - x, method="input_x_gradient"
    )
    assert (moved > 0.1).all()


def test_imputed_pixels_are_the_means_of_their_neighbours():
    image = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(1))
    removed = torch.rand(9, 11, generator=torch.Generator().manual_seed(2)) < 0.6
    removed[0, :4] = True
    filled = impute(image, removed, generator(0, "x"), noise=0.0)
    assert torch.equal(filled[:, ~removed], image[:, ~removed])
    where = removed.nonzero().tolist()
    system, right = np.eye(len(where)), np.zeros((len(where), 3))
    for i, (y, x) in enumerate(where):
        steps = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]
        inside = [(y + a, x + b, 1 / 6 if a * b == 0 else 1 / 12) for a, b in steps
                  if 0 <= y + a < 9 and 0 <= x + b < 11]  # fmt: skip
        total = sum(w for _, _, w in inside)
        for r, c, w in inside:
            if removed[r, c]:
                system[i, where.index([r, c])] -= w / total
            else:
                right[i] += w / total * image[:, r, c].numpy()
    want = np.linalg.solve(system, right)
    np.testing.assert_allclose(filled[:, removed].T.numpy(), want, atol=2e-3)
    everything = impute(image, torch.ones(9, 11).bool(), generator(0, "x"), noise=0.0)
    torch.testing.assert_close(everything, image.mean((1, 2), keepdim=True).expand_as(image))


def test_road_removes_the_hottest_and_the_coldest():
    model, x = linear(size=(10, 12)), pictures(3, 1, (10, 12))
    x[:, :, 2:5, 3:6] = 1
    with torch.no_grad():
        model.net[1].weight.zero_()
        model.net[1].weight.view(2, 10, 12)[1, 2:5, 3:6] = 1
    result = fv.attribute(model, x, CLASS, method="input_x_gradient")
    found = road(result, model)
    assert found.hottest.shape == found.coldest.shape == (3, 5)
    assert (found.gap > 1).all()
    torch.testing.assert_close(found.gap, (found.coldest - found.hottest).mean(1))
    torch.testing.assert_close(found.coldest[:, 0], result.scores.double())
    result.attributions = -result.attributions
    opposite = road(result, model)
    assert (opposite.gap < -1).all()
    volume = fv.attribute(nets.tiny(1), torch.rand(1, 2, 8), CLASS, method="saliency")
    with pytest.raises(FeatvizError, match="road imputes images"):
        road(volume, nets.tiny(1))
