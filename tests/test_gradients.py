"""Gradient overrides: captum as the judge, functional ReLUs that captum cannot reach, dead units."""

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv
from featviz.networks import gradients
from tests import nets

ignore_captum = pytest.mark.filterwarnings("ignore:Setting.*backward hooks:UserWarning")


class Modules(nn.Module):
    """ReLUs as modules, one of each kind used once."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3)
        )

    def forward(self, x):
        return self.body(x).mean((2, 3))


class Functional(Modules):
    """The same network, its ReLUs as functions in three spellings."""

    def forward(self, x):
        x = F.relu(self.body[0](x))
        x = self.body[2](x)
        x = torch.relu_(x) if self.training else x.relu()
        return self.body[4](x).mean((2, 3))


MODULES, FUNCTIONAL = nets.seeded(Modules).eval(), nets.seeded(Functional).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def saliency(net, images, override=None):
    images = images.clone().requires_grad_()
    if override is None:
        return torch.autograd.grad(net(images)[:, 1].sum(), images)[0]
    with override():
        value = net(images)[:, 1].sum()
    return torch.autograd.grad(value, images)[0]


@ignore_captum
@pytest.mark.parametrize(
    ("override", "method"),
    [
        (gradients.guided_relu, captum.attr.GuidedBackprop),
        (gradients.deconvnet_relu, captum.attr.Deconvolution),
    ],
)
def test_equals_captum_on_modules_and_reaches_functions(images, override, method):
    ours = saliency(MODULES, images, override)
    theirs = method(MODULES).attribute(images.clone().requires_grad_(), target=1)
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(ours, saliency(MODULES, images))
    # The functional twin computes the same; our gradient is the same, captum's is the true one.
    torch.testing.assert_close(saliency(FUNCTIONAL, images, override), ours)
    blind = method(FUNCTIONAL).attribute(images.clone().requires_grad_(), target=1)
    torch.testing.assert_close(blind, saliency(FUNCTIONAL, images))


@pytest.mark.parametrize("override", [gradients.guided_relu, gradients.deconvnet_relu])
def test_objectives_take_overrides_on_lite0(lite0, photos, override):
    """ReLU6 in Lite0's blocks is hardtanh, which gets its own rule; the value stays."""
    images = photos[:1].clone().requires_grad_()
    with override():
        value = fv.class_logit(285)(lite0, images)
    changed = torch.autograd.grad(value.sum(), images)[0]
    true = torch.autograd.grad(fv.class_logit(285)(lite0, images).sum(), images)[0]
    assert value.item() == pytest.approx(fv.class_logit(285)(lite0, images).item(), rel=1e-5)
    assert F.cosine_similarity(changed.flatten(), true.flatten(), dim=0) < 0.9


SPELLINGS = {
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x * 1, inplace=True),
    "torch.relu": torch.relu,
    "relu_": lambda x: (x * 1).relu_(),
    "method": lambda x: x.relu(),
    "module": nn.ReLU(),
    "module in place": lambda x: nn.ReLU(inplace=True)(x * 1),
    "F.relu6": F.relu6,
    "ReLU6": nn.ReLU6(),
    "ReLU6 in place": lambda x: nn.ReLU6(inplace=True)(x * 1),
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 4.0),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_keeps_its_value_and_gets_the_rule(name):
    function = SPELLINGS[name]
    values = torch.tensor([[-2.0, -1.0, 1.0, 2.0, 7.0, 9.0]], requires_grad=True)
    upstream = torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0, -1.0]])
    top = float("inf") if "6" not in name and name != "hardtanh" else 5.0
    above = values.detach() > top
    below = values.detach() < 0
    rules = {
        gradients.linear_relu: upstream,
        gradients.deconvnet_relu: upstream.clamp_min(0),
        gradients.guided_relu: upstream.clamp_min(0).masked_fill(below | above, 0),
        gradients.redirected_relu: upstream.masked_fill(below | above, 0),
    }
    for override, expected in rules.items():
        with override():
            made = function(values)
        assert torch.equal(made, function(values))
        (gradient,) = torch.autograd.grad(made, values, upstream)
        torch.testing.assert_close(gradient, expected, msg=override.__name__)
    assert torch.equal(
        torch.autograd.grad(function(values), values, upstream)[0],
        upstream.masked_fill(below | above, 0),
    )


def test_an_in_place_relu_still_works_in_place():
    values = torch.tensor([-1.0, 2.0])
    with gradients.guided_relu():
        F.relu(values, inplace=True)
    assert values.tolist() == [0, 2]


def test_other_clamps_are_left_alone():
    values = torch.tensor([-3.0, 0.5, 3.0], requires_grad=True)
    with gradients.linear_relu():
        made = F.hardtanh(values) + values.clamp(0, 1)
    assert torch.autograd.grad(made.sum(), values)[0].tolist() == [0, 2, 0]


def test_redirection_is_decided_for_each_sample():
    """Lucid's rule: only where no true gradient comes through, and only towards opening."""
    values = torch.tensor([[-1.0, -2.0, 3.0], [-1.0, -2.0, -3.0], [-1.0, 8.0, 9.0]])
    upstream = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 2.0], [-1.0, -1.0, 1.0]])
    values.requires_grad_()
    override = gradients.redirected_relu()
    with override:
        made = F.relu6(values)
    (gradient,) = torch.autograd.grad(made, values, upstream)
    assert gradient.tolist() == [[0, 0, 1], [1, 0, 2], [0, -1, 0]]
    assert override.take(3).tolist() == [False, True, True]
    assert override.take(3) is None


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool1d(2)])
def test_smooth_max_pool(pool):
    shape = (2, 3, 8, 8) if isinstance(pool, nn.MaxPool2d) else (2, 3, 8)
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with gradients.smooth_max_pool():
        made = pool(values)
    assert torch.equal(made, pool(values))
    (smooth,) = torch.autograd.grad(made.sum(), values)
    (sharp,) = torch.autograd.grad(pool(values).sum(), values)
    assert (smooth != 0).float().mean() > 0.99 > (sharp != 0).float().mean()
    average = F.avg_pool2d if values.ndim == 4 else F.avg_pool1d
    window = (pool.kernel_size, pool.stride, pool.padding)
    soft = average(values**2, *window) / (0.01 + average(values.abs(), *window))
    torch.testing.assert_close(smooth, torch.autograd.grad(soft.sum(), values)[0])


def test_redirected_relu_renders_a_dead_unit_that_nothing_else_reaches():
    """At the start the unit is closed over the whole image: no activation, no gradient."""
    conv = nn.Conv2d(3, 1, 3)
    with torch.no_grad():
        conv.weight.fill_(1 / 27)
        conv.bias.fill_(-0.6)  # opens where the image is brighter than 0.6
    model = fv.Model(nn.Sequential(conv, nn.ReLU()), size=12)
    gray = torch.full((1, 3, 12, 12), 0.5, requires_grad=True)
    value = fv.channel("1", 0)(model, gray)
    assert value.item() == 0
    assert torch.autograd.grad(value, gray)[0].abs().sum() == 0
    given = {"steps": 64, "transforms": (), "param": "fourier:color=none"}
    with pytest.raises(fv.OptimizationError, match="has no gradient"):
        fv.render(model, "channel:1:0", redirect=0, **given)
    result = fv.render(model, "channel:1:0", **given)
    assert result.redirected.tolist() == [True]
    assert result.scores.item() > 0.2


def test_live_units_are_not_redirected(lite0):
    result = fv.render(lite0, ["channel:_blocks.4:10", "class:3"], steps=3, size=96)
    assert result.redirected.tolist() == [False, False]
    same = fv.render(lite0, ["channel:_blocks.4:10", "class:3"], steps=3, size=96, redirect=0)
    torch.testing.assert_close(result.images, same.images, atol=1e-4, rtol=0)


def test_nothing_is_left_behind(images):
    before = saliency(MODULES, images)
    with pytest.raises(RuntimeError, match="inside"), gradients.guided_relu():
        raise RuntimeError("inside")
    assert torch.equal(saliency(MODULES, images), before)


def test_redirection_keeps_samples_apart_where_a_network_merges_axes():
    """Tokens (B * N, C): a dead row of a live sample is not redirected."""
    values = torch.tensor([[-1.0], [2.0], [-1.0], [-2.0]], requires_grad=True)
    override = gradients.redirected_relu(batch=2)
    with override:
        made = F.relu(values)
    (gradient,) = torch.autograd.grad(made.sum(), values)
    assert gradient.flatten().tolist() == [0, 1, 1, 1]
    assert override.take(2).tolist() == [False, True]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4, 5, 6)])
def test_redirection_takes_any_number_of_axes(shape):
    values = torch.full(shape, -1.0, requires_grad=True)
    with gradients.redirected_relu():
        made = F.relu(values)
    assert torch.autograd.grad(made.sum(), values)[0].shape == shape


class SideBranch(nn.Module):
    """A live path beside a ReLU that stays closed."""

    def __init__(self):
        super().__init__()
        self.live, self.dead = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        nn.init.constant_(self.dead.bias, -50)

    def forward(self, x):
        return self.live(x) + F.relu(self.dead(x))


@pytest.mark.parametrize("steps", [8, 40])
def test_a_dead_side_branch_does_not_make_a_picture_fail(steps):
    model = fv.Model(nets.seeded(SideBranch), size=10)
    assert not fv.render(model, "layer:output", steps=steps).failures
    assert not fv.render(model, "layer:output", steps=steps, redirect=steps).failures


def test_ctrl_c_in_the_redirected_steps_keeps_the_picture():
    def stop(step):
        if step.index == 3:
            raise KeyboardInterrupt

    model = fv.Model(nets.Dead(), size=8)
    result = fv.render(model, "channel:act:1", steps=40, callbacks=[stop])
    assert result.interrupted
    assert result.images.shape == (1, 3, 8, 8)
