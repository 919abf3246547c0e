"""Gradients between layers, and networks that modify what their layers returned."""

import dataclasses

import pytest
import torch
from torch import nn

import featviz as fv
from tests import nets


def hooked_gradient(net, images, upper, lower, channel):
    """The gradient by plain forward hooks: the module's output is what its hook sees."""
    found = {}
    modules = dict(net.named_modules())
    handles = [
        modules[name].register_forward_hook(lambda m, i, o, name=name: found.update({name: o}))
        for name in (upper, lower)
    ]
    try:
        net(images)
    finally:
        for handle in handles:
            handle.remove()
    (gradient,) = torch.autograd.grad(found[upper][:, channel].mean(), found[lower])
    return gradient


@pytest.mark.parametrize(
    ("upper", "lower"), [("_blocks.5", "_blocks.4"), ("_blocks.10", "_blocks.2")]
)
def test_a_gradient_between_blocks_is_that_of_plain_hooks(lite0, photos, upper, lower):
    images = photos.clone().requires_grad_()
    found = lite0.activations(images, [upper, lower])
    (gradient,) = torch.autograd.grad(found[upper][:, 3].mean(), found[lower])
    expected = hooked_gradient(lite0.net.eval(), lite0.normalize(images), upper, lower, 3)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-9)
    assert gradient.abs().max() > 0


class Residual(nn.Module):
    """In-place additions and activations after modules whose output is captured."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.pair, self.last = Pair(), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        y = self.conv(x)
        z = self.norm(y)
        z += 0.1 * y
        z = self.act(z)
        both, rest = self.pair(z)
        both *= 2
        return self.last(both + rest["a"].scaled)


@dataclasses.dataclass
class Scaled:
    scaled: torch.Tensor


class Pair(nn.Module):
    def forward(self, x):
        return x * 3, {"a": Scaled(x - 1)}


def test_overwritten_outputs_keep_value_and_gradient():
    model = fv.Model(nets.seeded(Residual).eval(), size=8)
    table = {info.name: info for info in model.layers()}
    flags = {name: info.overwritten for name, info in table.items()}
    assert {name for name, flag in flags.items() if flag} == {"norm", "pair[0]"}
    names = ["conv", "norm", "act", "pair[0]", "pair[1][a][scaled]", "output"]
    images = torch.rand(2, 3, 8, 8).requires_grad_()
    found = model.activations(images, names)
    net = model.net
    with torch.enable_grad():  # the same without anything in place
        conv = net.conv(images)
        norm = net.norm(conv)
        act = torch.relu(norm + 0.1 * conv)
        first, second = act * 3, act - 1
        output = net.last(first * 2 + second)
    expected = dict(zip(names, (conv, norm, act, first, second, output), strict=True))
    for name in names:
        torch.testing.assert_close(found[name], expected[name])
    for lower in names[:-1]:
        (a,) = torch.autograd.grad(found["output"].sin().sum(), found[lower], retain_graph=True)
        (b,) = torch.autograd.grad(output.sin().sum(), expected[lower], retain_graph=True)
        torch.testing.assert_close(a, b)


def test_a_view_of_the_input_that_is_modified_later_stays_what_it_was():
    model = fv.Model(nets.seeded(nets.InPlace).eval(), size=6)
    images = torch.rand(2, 3, 6, 6)
    found = model.activations(images, ["norm", "act", "flat", "output"])
    net = model.net
    with torch.no_grad():
        norm = net.norm(net.conv(images))
        act = (norm + 10).relu()
    torch.testing.assert_close(found["norm"], norm)
    torch.testing.assert_close(found["act"], act)
    torch.testing.assert_close(found["flat"], act.flatten(1))
    torch.testing.assert_close(found["output"], 2 * act.flatten(1))  # the view that was changed
    torch.testing.assert_close(found["output"], net(images))


class Moody(nn.Module):
    """Modifies in place only what is bright, so that the gray probing pass does not show it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        y = self.conv(x)
        if x.mean() > 0.9:
            y += 5
        return y


def test_a_modification_that_the_probing_pass_did_not_show_is_noticed():
    model = fv.Model(nets.seeded(Moody), size=4)
    images = torch.ones(1, 3, 4, 4)
    found = model.activations(images, ["conv", "output"])
    torch.testing.assert_close(found["conv"], model.net.conv(images))
    torch.testing.assert_close(found["output"], model.net.conv(images) + 5)


class PerSample(nn.Module):
    """One value a sample, on which a later layer depends."""

    def __init__(self):
        super().__init__()
        self.value, self.head = Mean(), nn.Linear(1, 3)

    def forward(self, x):
        return self.head(self.value(x)[:, None])


class Mean(nn.Module):
    def forward(self, x):
        return x.square().mean((1, 2, 3))


def test_values_per_sample_have_gradients_too():
    model = fv.Model(nets.seeded(PerSample), size=4)
    found = model.activations(torch.rand(2, 3, 4, 4).requires_grad_(), ["value", "head"])
    assert found["value"].shape == (2, 1)
    (gradient,) = torch.autograd.grad(found["head"][:, 1].sum(), found["value"])
    torch.testing.assert_close(gradient, model.net.head.weight[1, 0].expand(2, 1).detach())


def test_inference_mode_still_gives_what_layers_returned():
    model = fv.Model(nets.seeded(Residual).eval(), size=8)
    images = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        found = model.activations(images, ["norm", "output"])
    with torch.no_grad():
        torch.testing.assert_close(found["norm"], model.net.norm(model.net.conv(images)))
        torch.testing.assert_close(found["output"], model.net(images))
