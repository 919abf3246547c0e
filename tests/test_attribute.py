"""Attribution: against captum, numpy, closed forms, and networks whose answer is planted."""

import itertools
import json
import math

import captum.attr
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import nn

import featviz as fv
from featviz.attribution.baselines import baseline, blurred, grid
from featviz.attribution.methods import METHODS
from featviz.attribution.perturbation_based import coalitions
from featviz.attribution.result import colours, normalized, overlay
from featviz.errors import UnitError
from featviz.io.images import read
from featviz.seeds import generator
from tests import nets

CLASS = fv.class_logit(1)
#: Few steps for the methods that have them.
FAST = {name: {"steps": 12} if "steps" in m.options else {} for name, m in METHODS.items()}
FAST["integrated_gradients"] = {}  # chooses its steps
_NOISE = np.random.default_rng(0).integers(0, 256, (4, 40, 48), dtype=np.uint8)
FAST["pattern_attribution"] = {"data": [Image.fromarray(pixels) for pixels in _NOISE]}
FAST["kernel_shap"] = FAST["lime"] = {"steps": 60, "cells": 3}
FAST["prediction_difference"] = {"steps": 3, "cells": 3}
#: Methods that need layers whose channels can be scaled.
NOISE_IN_CHANNELS = [name for name, m in METHODS.items() if "channel_noise" in m.options]
EACH = [name for name, m in METHODS.items() if m.explain]
MASKS = [name for name, m in METHODS.items() if m.optimize]


def pictures(count=2, channels=2, size=(8, 10), seed=0):
    return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(seed))


def plain(model, logit):
    """The network as captum would be given it by hand: normalization outside, one column."""

    def forward(x):
        return model.net((x - 0.5) / 0.25)[:, logit]

    return forward


class Linear(nn.Module):
    """A weighted sum of all the pixels."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights.clone())

    def forward(self, x):
        return (x * self.weights).flatten(1).sum(1)[:, None] + 3


class Spot(nn.Module):
    """Sees nothing but the contrast of one square; `conv` gives it a layer with positions."""

    def __init__(self, top, left, side):
        super().__init__()
        self.box = (slice(None), slice(None), slice(top, top + side), slice(left, left + side))
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        seen = x[self.box]
        return (seen - 0.5).abs().flatten(1).mean(1)[:, None] * 5


def spot(top=6, left=20, side=10, size=(32, 40)):
    return fv.Model(nets.seeded(lambda: Spot(top, left, side)), size=size, channels=1)


def checks(size):
    """Black and white pixels by turns, whose blur is gray everywhere."""
    return (torch.stack(torch.meshgrid(*map(torch.arange, size), indexing="ij")).sum(0) % 2)[
        None, None
    ].float()


@pytest.mark.parametrize(
    ("method", "direct"),
    [
        ("saliency", lambda f, x: captum.attr.Saliency(f).attribute(x)),
        ("input_x_gradient", lambda f, x: captum.attr.InputXGradient(f).attribute(x)),
        (
            "integrated_gradients",
            lambda f, x: captum.attr.IntegratedGradients(f).attribute(x, n_steps=12),
        ),
    ],
)
def test_equal_to_captum_called_directly(tiny, method, direct):
    x = pictures()
    steps = {"steps": 12, "tolerance": 1.0} if method == "integrated_gradients" else {}
    made = fv.attribute(tiny, x, CLASS, method=method, **steps)
    want = direct(plain(tiny, 1), x.clone().requires_grad_())
    torch.testing.assert_close(made.attributions, want.detach().float(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(made.scores, plain(tiny, 1)(x).detach())


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("guided_backprop", captum.attr.GuidedBackprop),
        ("deconvnet", captum.attr.Deconvolution),
    ],
)
@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_our_relu_rules_equal_captums_on_module_relus(tiny, method, kind):
    x = pictures()
    made = fv.attribute(tiny, x, CLASS, method=method)
    shown = ((x - 0.5) / 0.25).requires_grad_()
    want = kind(tiny.net.eval()).attribute(shown, target=1) / 0.25  # by x and not by what it shows
    torch.testing.assert_close(made.attributions, want.detach(), rtol=1e-4, atol=1e-6)


@hypothesis.given(st.integers(0, 10**6), st.sampled_from(["black", "mean", "blur", 0.3]))
def test_on_a_linear_network(seed, ground):
    x, w = pictures(1, 2, (5, 7), seed), pictures(1, 2, (5, 7), seed + 1)[0] - 0.5
    model = fv.Model(Linear(w), size=(5, 7), channels=2)
    goal = fv.channel("output", 0)
    b = baseline(ground, x)
    found = {
        name: fv.attribute(
            model, x, goal, method=name, baseline=ground if METHODS[name].baseline else None, **more
        )
        for name, more in {
            "saliency": {},
            "input_x_gradient": {},
            "smooth_grad": {"steps": 2},
            "integrated_gradients": {"steps": 3},
            "feature_ablation": {"cells": 3},
            "kernel_shap": {"cells": 3, "steps": 600},
        }.items()
    }
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(found["saliency"].attributions[0], w.abs(), **close)
    torch.testing.assert_close(found["smooth_grad"].attributions[0], w, **close)
    torch.testing.assert_close(found["input_x_gradient"].attributions, w * x, **close)
    torch.testing.assert_close(found["integrated_gradients"].attributions, w * (x - b), **close)
    torch.testing.assert_close(found["integrated_gradients"].delta, torch.zeros(1), **close)
    labels = grid((5, 7), 3)
    share = (w * (x - b)).sum(1)[0]
    sums = torch.stack([share[labels == k].sum() for k in range(int(labels.max()) + 1)])
    for name in ("feature_ablation", "kernel_shap"):  # without interactions they are the same
        torch.testing.assert_close(found[name].attributions[0, 0], sums[labels], **close)


@hypothesis.given(st.integers(0, 10**6))
@hypothesis.settings(max_examples=15)
def test_integrated_gradients_are_complete(seed):
    model = nets.tiny()
    x = pictures(1, 2, (8, 8), seed)
    made = fv.attribute(model, x, CLASS, method="integrated_gradients", steps=300)
    rise = made.scores - made.baseline_scores
    torch.testing.assert_close(
        made.attributions.sum((1, 2, 3)) - rise, made.delta, atol=1e-5, rtol=0
    )
    assert made.delta.abs() < 0.02 * (1 + rise.abs())


def test_occlusion_is_brute_force(tiny):
    x = pictures(1)
    made = fv.attribute(tiny, x, CLASS, method="occlusion", cells=4, baseline="black")
    forward = plain(tiny, 1)
    stride = (8 // 3, 10 // 4)  # 8 rows hold round(8 * 4 / 10) = 3 cells
    total, hits = np.zeros((8, 10)), np.zeros((8, 10))
    whole = forward(x).item()
    steps = [math.ceil((s - 2 * d) / d) + 1 for s, d in zip((8, 10), stride, strict=True)]
    for i, j in itertools.product(*map(range, steps)):
        here = (
            slice(i * stride[0], (i + 2) * stride[0]),
            slice(j * stride[1], (j + 2) * stride[1]),
        )
        hidden = x.clone()
        hidden[(slice(None), slice(None), *here)] = 0
        total[here] += whole - forward(hidden).item()
        hits[here] += 1
    np.testing.assert_allclose(made.attributions[0, 0].numpy(), total / hits, rtol=1e-3, atol=1e-5)


def test_kernel_shap_with_all_coalitions_is_the_mean_over_orders(tiny):
    x = pictures(1)
    labels = torch.arange(4).repeat_interleave(20).view(8, 10)
    made = fv.attribute(tiny, x, CLASS, method="kernel_shap", segments=labels * 7, baseline="mean")
    ground, forward = x.mean((2, 3), keepdim=True), plain(tiny, 1)

    def value(members):
        shown = sum((labels == k for k in members), torch.zeros(8, 10)).bool()
        return forward(torch.where(shown, x, ground)).item()

    want = np.zeros(4)
    for order in itertools.permutations(range(4)):
        for place, k in enumerate(order):
            want[k] += value(order[: place + 1]) - value(order[:place])
    want = want[labels.numpy()] / 24
    np.testing.assert_allclose(made.attributions[0, 0].numpy(), want, rtol=1e-3, atol=1e-5)


def test_kernel_shap_refuses_what_does_not_determine_it():
    w = pictures(1, 1, (20, 20), 1)[0] - 0.5
    model, x = fv.Model(Linear(w), size=(20, 20), channels=1), pictures(1, 1, (20, 20))
    goal = fv.channel("output", 0)
    with pytest.raises(fv.FeatvizError, match="400 regions need at least 798 coalitions: use mor"):
        fv.attribute(model, x, goal, method="kernel_shap", cells=20, steps=512)
    fifty = torch.arange(400).view(20, 20) // 8
    # Enough of them, but drawn with replacement, and the same ones come again.
    with pytest.raises(fv.FeatvizError, match="98 sampled coalitions do not determine 50 regions"):
        fv.attribute(model, x, goal, method="kernel_shap", segments=fifty, steps=98)
    # All coalitions of three regions are there, however few steps would do.
    labels = torch.arange(400).view(20, 20) % 3
    made = fv.attribute(
        model, x, goal, method="kernel_shap", segments=labels, steps=6, baseline="black"
    )
    want = torch.stack([(w * x)[0, 0][labels == k].sum() for k in range(3)])[labels]
    torch.testing.assert_close(made.attributions[0, 0], want, rtol=1e-4, atol=1e-5)


def test_kernel_shap_says_when_values_are_not_finite():
    class Log(nn.Module):
        def forward(self, x):
            return x.flatten(1).mean(1).sub(0.3).log()[:, None]

    model, x = fv.Model(Log(), size=(8, 8), channels=1), torch.full((1, 1, 8, 8), 0.6)
    with pytest.raises(fv.FeatvizError, match="not finite with regions removed") as caught:
        fv.attribute(
            model, x, fv.channel("output", 0), method="kernel_shap", cells=2, baseline="black"
        )
    assert "\n" not in str(caught.value)


def test_coalitions_come_in_pairs_of_the_kernels_sizes():
    rows, weights = coalitions(12, 4001, seed=3)
    assert (rows[0:4000:2] == ~rows[1:4000:2]).all()
    assert weights.unique().tolist() == [1.0]
    share = torch.bincount(rows[:4000].sum(1), minlength=13).double() / 4000
    sizes = np.arange(1, 12)
    want = 1 / (sizes * (12 - sizes))
    np.testing.assert_allclose(share[1:12], want / want.sum(), atol=0.03)
    assert rows.sum(0).float().std() < 100  # no region is preferred
    assert torch.equal(rows, coalitions(12, 4001, seed=3)[0])
    assert not torch.equal(rows, coalitions(12, 4001, seed=4)[0])


class Cam(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, -2.0]).view(2, 1, 1, 1))
            self.head.weight.copy_(torch.tensor([[3.0, -5.0]]))

    def forward(self, x):
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


def test_grad_cam_by_hand():
    model = fv.Model(Cam(), size=(2, 4), channels=1, mean=0.5)
    x = torch.tensor([[[[0.0, 0.25, 0.75, 1.0], [1.0, 0.75, 0.5, 0.25]]]])
    made = fv.attribute(model, x, fv.channel("output", 0), method="grad_cam")
    # Positions 8: dy/dA_k = head_k / 8, its mean w_k = head_k / 8 (0 where the ReLU is shut
    # does not enter: the layer is what comes out of the ReLU).
    v = x - 0.5
    first, second = v.clamp_min(0), (-2 * v).clamp_min(0)
    want = (3 / 8 * first - 5 / 8 * second).clamp_min(0)
    torch.testing.assert_close(made.attributions, want)
    assert made.settings["layer"] == "relu"
    linear = fv.attribute(model, x, fv.channel("conv", 1), method="grad_cam")
    torch.testing.assert_close(linear.attributions, (1 / 8 * -2 * v).clamp_min(0))
    named = fv.attribute(model, x, fv.channel("output", 0), method="grad_cam", layer="relu")
    assert torch.equal(named.attributions, made.attributions)


def test_grad_cam_goes_through_the_truncated_pass(lite0, photos):
    made = fv.attribute(lite0, photos[:1], fv.channel("_blocks.4", 3), method="grad_cam")
    activation = lite0.activations(photos[:1], ["_blocks.4"])["_blocks.4"]
    # The channel's mean has the same gradient at each position, and no other channel counts.
    want = activation[:, 3:4].clamp_min(0) / activation[0, 3].numel()
    want = nn.functional.interpolate(want, (224, 224), mode="bilinear", align_corners=False)
    torch.testing.assert_close(made.attributions, want.detach())


@pytest.mark.filterwarnings("ignore:.*acts on ReLUs", "ignore:.*the map is zero")
@pytest.mark.parametrize("method", METHODS)
def test_a_picture_depends_neither_on_its_mates_nor_on_the_batch(method):
    model, x = (
        spot(),
        checks((32, 40)).repeat(3, 1, 1, 1) * torch.tensor([1.0, 0.9, 0.8]).view(3, 1, 1, 1),
    )
    goal = fv.channel("output", 0)
    if "cam" in method or method == "pattern_attribution" or method in NOISE_IN_CHANNELS:
        model, goal = nets.tiny(channels=1), CLASS
    together = fv.attribute(model, x, goal, method=method, seed=5, **FAST[method])
    alone = fv.attribute(model, x[2], goal, method=method, seed=7, **FAST[method])
    assert torch.equal(together.attributions[2:], alone.attributions)
    assert torch.equal(together.scores[2:], alone.scores)
    chunked = fv.attribute(model, x, goal, method=method, seed=5, batch_size=1, **FAST[method])
    torch.testing.assert_close(chunked.attributions, together.attributions, rtol=1e-4, atol=1e-6)
    again = fv.attribute(model, x, goal, method=method, seed=5, **FAST[method])
    assert torch.equal(again.attributions, together.attributions)
    assert torch.equal(together[2].attributions, alone.attributions)


def test_smooth_grad_is_the_mean_over_its_own_noise(tiny):
    x = pictures(1)
    made = fv.attribute(tiny, x, CLASS, method="smooth_grad", steps=7, sd=0.3, seed=11)
    other = fv.attribute(tiny, x, CLASS, method="smooth_grad", steps=7, sd=0.3, seed=12)
    assert not torch.equal(made.attributions, other.attributions)
    noise = torch.randn(7, 2, 8, 10, generator=generator(11, "smooth_grad"))
    noisy = (x + noise * 0.3 * (x.max() - x.min())).requires_grad_()
    (want,) = torch.autograd.grad(plain(tiny, 1)(noisy).sum(), noisy)
    torch.testing.assert_close(made.attributions, want.mean(0, keepdim=True), rtol=1e-4, atol=1e-6)


def test_numbers_of_numpy_are_numbers(tiny):
    x = pictures(1)
    made = fv.attribute(tiny, x, CLASS, method="smooth_grad", steps=2, sd=np.float32(0.25))
    same = fv.attribute(tiny, x, CLASS, method="smooth_grad", steps=2, sd=0.25)
    assert torch.equal(made.attributions, same.attributions)
    assert json.loads(json.dumps(made.record))["sd"] == 0.25


def test_one_objective_for_each_picture_or_several_for_one(tiny):
    x = pictures(2)
    goals = [fv.class_logit(0), fv.class_logit(2) - 0.5 * fv.channel("first", 1)]
    both = fv.attribute(tiny, x, goals, method="saliency")
    one = fv.attribute(tiny, x[0], [str(g) for g in goals], method="saliency")
    assert both.objectives == one.objectives == [str(g) for g in goals]
    assert torch.equal(both.attributions[0], one.attributions[0])
    assert not torch.equal(both.attributions[1], one.attributions[1])
    assert torch.equal(one.images[0], one.images[1])


@pytest.mark.parametrize(
    ("objective", "same"),
    [
        (fv.neuron("first", 2), False),
        (fv.layer("second"), False),
        (fv.direction("first", np.array([1.0, 2.0, 0.0, -1.0])), False),
        ("channel:first:1 - 0.5*class:2", False),
        (fv.channel("first", 1) - fv.channel("first", 1) + fv.l1(), True),
    ],
    ids=str,
)
def test_any_objective(tiny, objective, same):
    x = pictures(1)
    made = fv.attribute(tiny, x, objective, method="saliency")
    images = x.clone().requires_grad_()
    (want,) = torch.autograd.grad(fv.objective(objective)(tiny, images).sum(), images)
    torch.testing.assert_close(made.attributions, want.abs(), rtol=1e-4, atol=1e-6)
    assert bool((made.attributions == 1).all()) is same


@pytest.mark.filterwarnings("ignore:.*acts on ReLUs", "ignore:.*the map is zero")
@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_alone(method):
    model, x = spot(), checks((32, 40))
    goal = fv.channel("output", 0)
    if "cam" in method or method == "pattern_attribution" or method in NOISE_IN_CHANNELS:
        model, goal = nets.tiny(channels=1), CLASS
    net = model.net.train()
    next(net.children()).eval()
    first = next(net.parameters())
    first.requires_grad_(False)
    before = [(m.training, len(m._forward_hooks), len(m._backward_hooks)) for m in net.modules()]
    flags = [(p.requires_grad, p.grad) for p in net.parameters()]
    weights = [p.clone() for p in net.parameters()]
    state = torch.get_rng_state()
    fv.attribute(model, x, goal, method=method, **FAST[method])
    with pytest.raises(fv.FeatvizError):
        fv.attribute(model, x, goal, method=method, baseline=7.0, **FAST[method])
    after = [(m.training, len(m._forward_hooks), len(m._backward_hooks)) for m in net.modules()]
    assert after == before
    assert [(p.requires_grad, p.grad) for p in net.parameters()] == flags
    assert all(map(torch.equal, net.parameters(), weights))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("method", [m for m in EACH if "cam" not in m])
@pytest.mark.parametrize("spatial", [1, 3])
def test_signals_and_volumes(method, spatial):
    model = nets.tiny(spatial)
    x = pictures(1, 2, (9, 8, 7)[:spatial])
    given = dict(FAST[method])
    if "data" in given:
        given["data"] = pictures(4, 2, (9, 8, 7)[:spatial], 3)
    if method == "xrai":  # has segments of its own for images only
        given["segments"] = torch.arange(x[0, 0].numel()).view(x.shape[2:]) // 4
    made = fv.attribute(model, x[0], CLASS, method=method, **given)
    assert made.heat.shape == (1, *x.shape[2:])
    assert made.attributions.isfinite().all()
    assert made.attributions.any()
    with pytest.raises(fv.FeatvizError, match="cannot draw"):
        made.save("signal.png")


def test_heat_is_divided_by_the_percentile_and_clipped():
    values = torch.linspace(-0.5, 1, 1000).view(1, 20, 50)
    heat = normalized(values, 99, signed=True)
    size = values.abs().flatten().sort().values[989]
    torch.testing.assert_close(heat, (values / size).clamp(-1, 1))
    one = torch.zeros(1, 20, 50)
    one[0, 3, 4] = 2.0
    assert normalized(one, 99, signed=False).unique().tolist() == [0.0, 1.0]
    assert not normalized(torch.zeros(1, 4, 4), 99, signed=True).any()


def test_colours_are_white_at_zero_and_differ_in_sign():
    drawn = colours(torch.tensor([[[-1.0, 0.0, 1.0]]]))[0, :, 0].T
    assert drawn[1].tolist() == [1, 1, 1]
    assert drawn[0, 2] > 2 * drawn[0, 0]
    assert drawn[2, 0] > 2 * drawn[2, 2]
    photo = torch.rand(1, 3, 4, 4)
    calm = overlay(photo, torch.zeros(1, 4, 4))
    assert calm.std(1).max() < 1e-6  # gray
    assert overlay(photo, torch.ones(1, 4, 4))[0, 0].min() > calm[0, 0].min() * 0.5


def test_blur_is_a_gaussian_and_keeps_what_is_flat():
    torch.testing.assert_close(
        blurred(torch.full((1, 2, 9, 30), 0.3)), torch.full((1, 2, 9, 30), 0.3)
    )
    point = torch.zeros(1, 1, 101)
    point[..., 50] = 1
    offsets = np.arange(101) - 50
    want = np.exp(-((offsets / 5) ** 2) / 2) * (abs(offsets) <= 15)
    found = blurred(point, 5 / 101)[0, 0].numpy()
    np.testing.assert_allclose(found, want / want.sum(), atol=1e-6)
    edge = np.pad(np.arange(20.0), 30, mode="edge")
    kernel = np.exp(-((np.arange(-6, 7) / 2) ** 2) / 2)
    want = np.convolve(edge, kernel / kernel.sum(), mode="same")[30:50]
    found = blurred(torch.arange(20.0)[None, None], 2 / 20)[0, 0].numpy()
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_grid_cells_are_about_square_and_cover_everything():
    labels = grid((20, 50), 10)
    assert labels.unique().tolist() == list(range(4 * 10))
    assert (labels[:5, :5] == 0).all()
    assert labels[0, 5] == 1
    assert labels[5, 0] == 10
    assert grid((3, 4), None).flatten().tolist() == list(range(12))


def test_area_is_the_distance_from_the_sorted_template(tiny):
    x = pictures(2)
    values = np.sort(x[:, 1].flatten(1).numpy())
    template = np.repeat([0.0, 1.0], [56, 24])
    want = ((values - template) ** 2).mean(1)
    np.testing.assert_allclose(fv.area(0.3, channel=1)(tiny, x).numpy(), want, rtol=1e-5)
    assert fv.area(0.3)(tiny, x).equal(fv.area(0.3, channel=1)(tiny, x))


def test_files_are_cropped_to_the_models_size_and_tensors_taken_as_they_are(tmp_path, lite0):
    cat = Image.fromarray(skimage.data.chelsea())
    cat.save(tmp_path / "cat.png")
    made = fv.attribute(lite0, tmp_path / "cat.png", fv.class_logit(285), method="grad_cam")
    again = fv.attribute(lite0, cat, "class:285", method="grad_cam")
    assert made.images.shape == (1, 3, 224, 224)
    assert torch.equal(made.images, read(tmp_path / "cat.png", 3, (224, 224)))
    assert torch.equal(made.images, again.images)
    wide = fv.attribute(lite0, cat, "class:285", method="grad_cam", size=(160, 240))
    assert wide.images.shape == (1, 3, 160, 240)
    assert wide.settings["size"] == [160, 240]
    kept = fv.attribute(lite0, wide.images, "class:285", method="grad_cam")
    assert torch.equal(kept.attributions, wide.attributions)
    several = fv.attribute(lite0, [tmp_path / "cat.png", cat], "class:285", method="grad_cam")
    assert torch.equal(several.attributions, made.attributions.repeat(2, 1, 1, 1))


def test_half_precision_is_near(lite0, photos):
    full = fv.attribute(lite0, photos[:1], fv.class_logit(285), method="grad_cam")
    half = fv.attribute(lite0, photos[:1], fv.class_logit(285), method="grad_cam", precision="bf16")
    assert not torch.equal(full.attributions, half.attributions)
    assert torch.corrcoef(torch.stack([full.heat.flatten(), half.heat.flatten()]))[0, 1] > 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "integrated_gradient"}, "did you mean 'integrated_gradients'"),
        ({"method": "saliency", "steps": 3}, "method saliency takes no steps: it takes no options"),
        ({"method": "smooth_grad", "area": 0.1}, "takes no area: it takes steps, sd"),
        ({"method": "saliency", "baseline": "blur"}, "method saliency takes no baseline"),
        ({"baseline": "blurr"}, "no baseline 'blurr'"),
        ({"baseline": 1.5}, r"baseline must be in \[0, 1\], not 1.5"),
        ({"baseline": torch.rand(3, 3, 3)}, r"baseline of shape \(3, 3, 3\) does not fit"),
        ({"baseline": torch.full((2, 8, 8), 2.0)}, r"a baseline must be in \[0, 1\]"),
        ({"steps": 0}, "steps must be positive, not 0"),
        ({"method": "occlusion", "cells": 2.5}, "cells must be a whole number"),
        ({"method": "grad_cam", "layer": "secnd"}, "no layer 'secnd'; did you mean 'second'"),
        ({"method": "grad_cam", "layer": "head"}, "an activation map needs maps"),
        ({"method": "kernel_shap", "segments": torch.zeros(3, 3).long()}, "segments must be whole"),
        ({"method": "kernel_shap", "segments": torch.zeros(8, 8).long()}, "at least two regions"),
        (
            {"method": "extremal_perturbation", "area": 1.5},
            "area must be between 0 and 1, or several",
        ),
        (
            {"method": "extremal_perturbation", "kind": "keep"},
            "no kind 'keep': use preserve, delete",
        ),
        (
            {"method": "extremal_perturbation", "area": "big"},
            "several such fractions, not 'b",
        ),
        ({"method": "extremal_perturbation", "area": math.nan}, "several such fractions, not nan"),
        ({"method": "smooth_grad", "sd": math.nan}, "sd must be a number, not nan"),
        ({"method": "smooth_grad", "sd": -1.0}, "sd must not be negative"),
        ({"method": "smooth_grad", "sd": "wide"}, "sd must be a number"),
        ({"method": "smooth_grad", "sd": math.inf}, "sd must be at most 1000"),
        ({"method": "grad_cam", "layer": 3}, "layer must be a text, not int"),
        ({"method": "kernel_shap", "segments": "all"}, "segments must be whole numbers"),
        ({"method": "kernel_shap", "segments": torch.rand(8, 8)}, "segments must be whole numbers"),
        ({"method": "kernel_shap", "steps": 95}, "49 regions need at least 96 coalitions: use "),
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"precision": "fp8"}, "no precision 'fp8'"),
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"seed": [1, 2]}, "2 seeds for 1 images"),
    ],
)
def test_bad_options_are_one_line(tiny, change, message):
    with pytest.raises(fv.FeatvizError, match=message) as caught:
        fv.attribute(tiny, pictures(1, size=(8, 8)), CLASS, **change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("image", "objective", "message"),
    [
        (pictures(1), fv.diversity("first"), "objectives of single images, not diversity:first"),
        (pictures(3), ["class:0", "class:1"], "2 objectives for 3 images"),
        (pictures(1), "class:7", "no class 7"),
        (pictures(1, 3), CLASS, r"image must have shape \(B, 2, H, W\), not \(1, 3, 8, 10\)"),
        (pictures(1) * 3, CLASS, r"image must be in \[0, 1\]"),
        (torch.full((1, 2, 8, 8), torch.nan), CLASS, r"image must be in \[0, 1\]"),
        ([], CLASS, "image: give at least one"),
        ([pictures(1), pictures(1, size=(8, 8))], CLASS, "several of different sizes"),
        (7, CLASS, "image must be a file, a Pillow image, an array or a float tensor, not int"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_bad_images_and_objectives_are_one_line(tiny, image, objective, message):
    with pytest.raises(fv.FeatvizError, match=message):
        fv.attribute(tiny, image, objective)


def test_grad_cam_says_which_layers_it_cannot_take(tiny, tokens):
    with pytest.raises(
        fv.FeatvizError, match="layer 'second' runs after what channel:first:0 reads"
    ):
        fv.attribute(tiny, pictures(1), fv.channel("first", 0), method="grad_cam", layer="second")
    x = pictures(1, 3, (16, 16))
    with pytest.raises(fv.FeatvizError, match="an activation map needs maps"):
        fv.attribute(tokens, x, "class:0", method="grad_cam", layer="head")
    with pytest.raises(fv.FeatvizError, match="no layer that l1 depends on"):
        fv.attribute(tiny, pictures(1), fv.l1(), method="grad_cam")


class Branches(nn.Module):
    """The classes come from one branch; the other, with a map of its own, runs last."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 1)
        self.main = nn.Conv2d(3, 2, 1)
        self.side = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.main(x).mean((2, 3)), self.side(x).mean((2, 3))


def test_grad_cam_takes_the_last_layer_that_leads_to_the_objective():
    net = nets.seeded(Branches)
    model, x = fv.Model(net, size=(8, 8), channels=1), pictures(1, 1, (8, 8))
    goal = -1 * fv.channel("output[0]", 1)
    made = fv.attribute(model, x, goal, method="grad_cam")
    maps = model.activations(x, ["main"])["main"].detach()
    assert made.attributions.any()
    torch.testing.assert_close(made.attributions, (-maps[:, 1:] / 64).clamp_min(0))
    with pytest.warns(fv.FeatvizWarning, match="acts on ReLUs"):
        guided = fv.attribute(model, x, goal, method="guided_grad_cam")
    assert guided.attributions.isfinite().all()
    with pytest.raises(
        fv.FeatvizError, match="no gradient with respect to the maps of layer 'side'"
    ) as caught:
        fv.attribute(model, x, goal, method="grad_cam", layer="side")
    assert "\n" not in str(caught.value)
    assert not any(m._forward_hooks for m in net.modules())


class Cut(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)

    def forward(self, x):
        return self.conv(x.detach()).square().mean((2, 3))


@pytest.mark.parametrize("method", METHODS)
def test_without_a_gradient_it_says_so_where_it_needs_one(method):
    model, x = fv.Model(nets.seeded(Cut), size=(8, 8), channels=1), checks((8, 8))
    call = {"method": method, **FAST[method]}
    if METHODS[method].gradients:
        with pytest.raises(
            fv.FeatvizError, match="has no gradient with respect to the image"
        ) as caught:
            fv.attribute(model, x, fv.channel("output", 0), **call)
        assert "\n" not in str(caught.value)
    else:  # not of checks, whose windows are all alike
        picture = pictures(1, 1, (8, 8))
        assert fv.attribute(model, picture, fv.channel("output", 0), **call).attributions.any()
    whole = nets.tiny(channels=1)
    model, goal = (spot(), fv.channel("output", 0)) if METHODS[method].optimize else (whole, CLASS)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            assert fv.attribute(model, checks((32, 40)), goal, **call).attributions.any()


@pytest.mark.parametrize("method", ["saliency", "integrated_gradients", "smooth_grad", "grad_cam"])
def test_small_gradients_do_not_vanish_in_half_precision(method):
    class Faint(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = (nn.Conv2d(1, 1, 1, bias=False) for _ in range(2))

        def forward(self, x):
            return self.second(self.first(x)).mean((2, 3))

    net = Faint()
    for p in net.parameters():
        nn.init.constant_(p, 3e-3)
    # The slope by a pixel is 9e-6 / 1024, by a map 1 / 1024 or less: half precision ends at 6e-8.
    model, x = fv.Model(net, size=(32, 32), channels=1), pictures(1, 1, (32, 32))
    goal = fv.channel("output", 0)
    full = fv.attribute(model, x, goal, method=method, **FAST[method])
    half = fv.attribute(model, x, goal, method=method, precision="fp16", **FAST[method])
    assert full.attributions.any()
    torch.testing.assert_close(half.attributions, full.attributions, rtol=0.05, atol=1e-10)
    torch.testing.assert_close(half.scores, full.scores, rtol=0.01, atol=0)


def test_area_of_a_layer_without_positions_is_one_line(tiny):
    with pytest.raises(UnitError, match="area: layer 'head' has no positions"):
        fv.objective("area:0.5:layer=head")(tiny, pictures(1))


def test_without_captum_it_says_what_to_install(tiny, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    with pytest.raises(fv.FeatvizError, match=r"pip install 'featviz\[explain\]'"):
        fv.attribute(tiny, pictures(1), CLASS, method="occlusion")
    made = fv.attribute(tiny, pictures(1), CLASS, method="kernel_shap", cells=2)  # is ours
    assert made.attributions.any()


def test_an_interrupt_returns_what_is_done(tiny, second_is_interrupted):
    made = fv.attribute(tiny, pictures(3), CLASS, method="saliency")
    assert made.interrupted
    assert len(made) == len(made.scores) == len(made.goals) == len(made.heat) == 1
    second_is_interrupted[:] = [None]
    with pytest.raises(KeyboardInterrupt):
        fv.attribute(tiny, pictures(3), CLASS, method="saliency")


def test_auto_is_grad_cam_on_late_maps_and_kernel_shap_otherwise(lite0):
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    named = fv.attribute(lite0, x, "class:285", method="grad_cam")
    auto = fv.attribute(lite0, x, "class:285")
    assert (auto.method, auto.record["method"]) == ("grad_cam", "grad_cam")
    assert torch.equal(auto.attributions, named.attributions)
    patches = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 8, 8), torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.ReLU(),
        torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3),
    )  # fmt: skip
    flat = fv.Model(patches, size=16)
    tiny = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert fv.attribute(flat, tiny, "class:1").method == "kernel_shap"


@pytest.mark.filterwarnings("ignore:layer '_blocks.3' has no evidence")
@pytest.mark.parametrize(
    ("option", "method"),
    [({"layer": "_blocks.3"}, "grad_cam"), ({"cells": 2, "steps": 8}, "kernel_shap"),
     ({"baseline": "black", "cells": 2, "steps": 8}, "kernel_shap"),
     ({"channel_noise": 0.1, "steps": 2}, "fusion_grad")],
)  # fmt: skip
def test_options_decide_what_auto_is(lite0, option, method):
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert fv.attribute(lite0, x, "class:285", **option).method == method
