"""Gradients under noise: against captum's noise tunnel, closed forms, and plain loops."""

import pytest
import torch
from torch import nn

import featviz as fv
from featviz.errors import FeatvizError
from featviz.normals import normals
from featviz.seeds import generator
from tests import nets
from tests.test_attribute import CLASS, pictures, plain

NOISY = ["smooth_grad", "smooth_grad_squared", "var_grad"]


def noisy_gradients(model, x, sd, steps, seed):
    noise = torch.randn(steps, *x.shape[1:], generator=generator(seed, "smooth_grad"))
    noisy = (x + noise * sd * (x.max() - x.min())).requires_grad_()
    return torch.autograd.grad(plain(model, 1)(noisy).sum(), noisy)[0]


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_squares_and_variances_are_those_of_the_gradients(batch_size):
    model, x = nets.tiny(), pictures(1)
    given = {"steps": 7, "sd": 0.3, "seed": 11, "batch_size": batch_size}
    made = {m: fv.attribute(model, x, CLASS, method=m, **given).attributions for m in NOISY}
    g = noisy_gradients(model, x, 0.3, 7, 11).double()
    close = {"rtol": 1e-4, "atol": 1e-9, "check_dtype": False}
    torch.testing.assert_close(made["smooth_grad_squared"], (g**2).mean(0, keepdim=True), **close)
    torch.testing.assert_close(made["var_grad"], g.var(0, unbiased=False, keepdim=True), **close)
    assert made["var_grad"].any()


@pytest.mark.parametrize(
    ("method", "kind"), [("smooth_grad_squared", "smoothgrad_sq"), ("var_grad", "vargrad")]
)
def test_agrees_with_the_noise_tunnel_of_captum(method, kind):
    attr = pytest.importorskip("captum.attr")
    model, x = nets.tiny(), pictures(1)
    x[0, 0, 0, 0], x[0, 0, 0, 1] = 0.0, 1.0  # so that the range is 1
    made = fv.attribute(model, x, CLASS, method=method, steps=4000, sd=0.3, batch_size=500)
    torch.manual_seed(3)
    tunnel = attr.NoiseTunnel(attr.Saliency(plain(model, 1)))
    given = {"nt_type": kind, "nt_samples": 4000, "nt_samples_batch_size": 500, "stdevs": 0.3}
    want = tunnel.attribute(x, **given, abs=False)
    error = (made.attributions - want).norm() / want.norm()
    assert error < 0.06, float(error)


@pytest.mark.filterwarnings("ignore:.*changes only the length")
def test_a_linear_network_has_no_variance():
    net = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 2)))
    model = fv.Model(net, size=(2, 3), channels=1, mean=0.0, std=1.0)
    x, w = pictures(1, 1, (2, 3)), net[1].weight[1].detach().view(1, 1, 2, 3)
    with pytest.warns(fv.FeatvizWarning, match="does not vary over 25 noisy copies"):
        made = {m: fv.attribute(model, x, CLASS, method=m) for m in [*NOISY, "sensitivity"]}
    assert not made["var_grad"].attributions.any()
    torch.testing.assert_close(made["smooth_grad_squared"].attributions, w**2)
    torch.testing.assert_close(made["sensitivity"].attributions, w**2)
    torch.testing.assert_close(made["sensitivity"].pixels, w[0] ** 2)


class Normalized(nn.Module):
    """A convolution, batch-norm and a ReLU, twice."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x, one=1.0, two=1.0):
        x = (self.norm1(self.conv1(x)) * one).relu()
        return self.head((self.norm2(self.conv2(x)) * two).relu().mean((2, 3)))


@pytest.mark.parametrize(
    ("method", "sd"), [("noise_grad", 0.0), ("fusion_grad", 0.1), ("fusion_grad", 0.0)]
)
def test_noise_in_the_network_scales_the_channels_of_every_copy(method, sd):
    net = nets.seeded(Normalized).eval()
    model, x = fv.Model(net, size=(8, 10), channels=2, mean=0.5, std=0.25), pictures(1)
    given = {"steps": 5, "channel_noise": 0.3, "seed": 4, "batch_size": 2}
    if method == "fusion_grad":
        given["sd"] = sd
    made = fv.attribute(model, x, CLASS, method=method, **given)
    rng = generator(4, "noise_grad")
    total = torch.zeros_like(x)
    for _ in range(5):
        start = float(torch.rand((), generator=rng))
        factors = 1 + 0.3 * normals(start, 10, torch.device("cpu"))
        one, two = (f.view(1, -1, 1, 1) for f in factors.split([4, 6]))
        noise = torch.randn(1, *x.shape[1:], generator=rng) * sd * (x.max() - x.min())
        seen = (x + noise).requires_grad_()
        value = net((seen - 0.5) / 0.25, one, two)[0, 1]
        total += torch.autograd.grad(value, seen)[0]
    torch.testing.assert_close(made.attributions, total / 5, rtol=1e-4, atol=1e-7)
    plain_gradient = fv.attribute(model, x, CLASS, method="smooth_grad", steps=1, sd=0.0)
    assert not torch.allclose(made.attributions, plain_gradient.attributions, rtol=0.01)


def test_the_network_comes_back_without_noise():
    net = nets.seeded(Normalized).eval()
    model, x = fv.Model(net, size=(8, 10), channels=2), pictures(2)
    before = model(x)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    fv.attribute(model, x, CLASS, method="noise_grad", steps=40)  # enough for a trace
    assert torch.equal(model(x), before)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("method", ["noise_grad", "fusion_grad"])
def test_without_noise_it_is_the_gradient(method):
    model, x = nets.tiny(), pictures(1)
    given = {"sd": 0} if method == "fusion_grad" else {}
    made = fv.attribute(model, x, CLASS, method=method, channel_noise=0, steps=3, **given)
    want = fv.attribute(model, x, CLASS, method="smooth_grad", steps=1, sd=0)
    torch.testing.assert_close(made.attributions, want.attributions)


class Bare(nn.Module):
    def forward(self, x):
        return x.relu().sum((2, 3))


def test_a_network_without_channels_to_scale_is_refused():
    model = fv.Model(Bare(), size=(4, 4), channels=2)
    with pytest.raises(FeatvizError, match="channel_noise has nothing to act on"):
        fv.attribute(model, pictures(1, 2, (4, 4)), CLASS, method="noise_grad")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "noise_grad", "sd": 0.1}, "noise_grad takes no sd: it takes steps, channel"),
        ({"method": "noise_grad", "channel_noise": -0.1}, "channel_noise must not be negative"),
        ({"method": "fusion_grad", "channel_noise": "wide"}, "channel_noise must be a number"),
    ],
)
def test_options_that_it_cannot_take(given, message):
    with pytest.raises(FeatvizError, match=message):
        fv.attribute(nets.tiny(), pictures(1), CLASS, **given)
