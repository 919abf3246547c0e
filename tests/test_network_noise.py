"""Noise in the network: factors on channels and residual branches, the same for all samples."""

import inspect
import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import featviz as fv
from featviz import transforms as T
from featviz.cli.main import main
from featviz.errors import FeatvizError
from featviz.networks.noise import NetworkNoise, find_sites
from featviz.normals import normals
from featviz.optim import stages, tracing
from featviz.transforms import BranchNoise, ChannelNoise, parse, presets, text


class Residual(nn.Module):
    """Two residual blocks: one in place, one with a projected shortcut that comes first."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv1, self.norm1 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.shortcut = nn.Conv2d(6, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.norm0(self.stem(x)))
        branch = self.norm1(self.conv1(x))
        branch += x
        x = F.relu(branch)
        x = F.relu6(self.shortcut(x) + self.norm2(self.conv2(x)))
        return self.head(x.mean((2, 3)))


class Block(nn.Module):
    """A pre-norm transformer block on patches, with layer scale and position embeddings."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.positions = nn.Parameter(torch.randn(1, 16, 12))
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.scale = nn.Parameter(torch.full((12,), 0.5))

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.positions
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0] * self.scale
        return (x + self.mlp(self.norm2(x))).mean(1)


def model_of(make, side=16):
    torch.manual_seed(0)
    net = make()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight, 1, 0.3)
    return fv.Model(net, size=side)


@pytest.fixture(scope="module")
def residual():
    return model_of(Residual)


def noisy(model, images, sd=(0.3, 0.5), start=(0.25, 0.75), layer="output"):
    noise = NetworkNoise(model, tuple(images.shape[2:]), channels=sd[0] > 0, branches=sd[1] > 0)
    noise.draw_((sd[0], start[0]), (sd[1], start[1]))
    with noise, torch.no_grad():
        return noise, model.activations(images, [layer])[layer]


def test_factors_multiply_norms_and_branches(residual):
    images = torch.rand(2, 3, 16, 16)
    noise, actual = noisy(residual, images)
    assert noise.sites.branches == (0, 1)
    c0, c1, c2 = (1 + 0.3 * normals(0.25, 20, torch.device("cpu"))).split([6, 6, 8])
    b1, b2 = 1 + 0.5 * normals(0.75, 2, torch.device("cpu"))
    net = residual.net
    with residual.session(), torch.no_grad():
        x = F.relu(net.norm0(net.stem(images)) * c0[:, None, None])
        x = F.relu(net.norm1(net.conv1(x)) * c1[:, None, None] * b1 + x)
        branch = net.norm2(net.conv2(x)) * c2[:, None, None] * b2
        expected = net.head(F.relu6(net.shortcut(x) + branch).mean((2, 3)))
    torch.testing.assert_close(actual, expected)


def test_a_transformer_has_noise_on_layer_norms_and_on_both_branches():
    model = model_of(Block)
    sites = find_sites(model, (16, 16))
    assert sites.functions["layer_norm"]
    assert sites.shapes == ((12,), (12,))
    assert sites.branches == (-1, 1, 1)  # position embeddings are no branch
    images = torch.rand(3, 3, 16, 16)
    noise, actual = noisy(model, images)
    net = model.net
    c = noise.channel_factors.split(12)
    b = noise.branch_factors
    with model.session(), torch.no_grad():
        x = net.patches(images).flatten(2).transpose(1, 2) + net.positions
        y = net.norm1(x) * c[0]
        x = x + net.attention(y, y, y, need_weights=False)[0] * net.scale * b[1]
        expected = (x + net.mlp(net.norm2(x) * c[1]) * b[2]).mean(1)
    torch.testing.assert_close(actual, expected)


def test_without_normalization_it_is_on_convolutions_and_linear_layers():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 5))
    model = fv.Model(net, size=8)
    assert find_sites(model, (8, 8)).shapes == ((4, 1, 1), (5,))
    images = torch.rand(2, 3, 8, 8)
    noise, actual = noisy(model, images, (0.3, 0))
    first, last = noise.channel_factors.split([4, 5])
    with torch.no_grad():
        hidden = net[2](torch.tanh(net[0](images) * first[:, None, None]))
        torch.testing.assert_close(actual, net[3](hidden) * last)


def test_functional_batch_norm_and_plain_functions_are_reached():
    mean, variance = torch.zeros(3), torch.ones(3)

    def network(images):
        return F.batch_norm(images, mean, variance).relu()

    model = fv.Model(network, size=8)
    images = torch.rand(2, 3, 8, 8)
    noise, actual = noisy(model, images, (0.3, 0))
    expected = network(images) * noise.channel_factors[:, None, None]
    torch.testing.assert_close(actual, expected)


def test_every_network_transform_is_tested_here():
    kinds = {getattr(T, name) for name in T.__all__}
    network = {k for k in kinds if inspect.isclass(k) and issubclass(k, T.NetworkTransform)}
    assert network == {T.NetworkTransform, ChannelNoise, BranchNoise}
    names = {c for c, kind in presets.NAMES.items() if kind in network}
    assert all(any(name in kind for kind in KINDS) for name in names)


KINDS = ["channel_noise:0.2", "branch_noise:0.3", "channel_noise:0.2,branch_noise:0.3"]


@pytest.mark.parametrize("layer", ["output", "norm1", "conv2"])
@pytest.mark.parametrize("transforms", KINDS)
def test_a_traced_run_is_that_of_the_modules(residual, transforms, layer, monkeypatch):
    options = {
        "steps": tracing.PAYS,
        "transforms": f"jitter:0.05,{transforms}",
        "seed": [3, 4, 5, 6],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        traced = fv.render(residual, fv.channel(layer, 1), **options)
    monkeypatch.setattr(stages, "PAYS", 10**9)
    untraced = fv.render(residual, fv.channel(layer, 1), **options)
    torch.testing.assert_close(traced.history[:8], untraced.history[:8], rtol=1e-3, atol=1e-4)
    plain = fv.render(residual, fv.channel(layer, 1), **{**options, "transforms": "jitter:0.05"})
    acts = "channel" in transforms or layer != "norm1"  # before the first branch, only channels
    assert torch.allclose(traced.images, plain.images, atol=1e-3) != acts


@pytest.mark.parametrize("large", [False, True])
def test_scaled_weights_and_scaled_outputs_are_the_same(large):
    """Where a layer has more weights than its output has numbers, its output is scaled."""
    torch.manual_seed(0)
    side = 4 if large else 24
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU6(),
        nn.Conv2d(32, 48, 3, stride=2, padding=1),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.Conv2d(48, 48, 3, groups=48, padding=1),
        nn.BatchNorm2d(48),
    )
    model = fv.Model(net.eval(), size=side)
    noise = NetworkNoise(model, (side, side), channels=True, branches=False)
    images = torch.rand(2, 3, side, side)

    def run(batch):
        with noise:
            return [model.activations(batch, ["output"])["output"]]

    with model.session():
        traced = tracing.trace(run, images, noise=noise)
        assert traced is not None
        fused = [m for m in traced.graph.modules() if hasattr(m, "factors")]
        assert [len(m.factors) for m in fused] == [1, 1, 1]
        for start in (0.1, 0.6):
            noise.draw_((0.3, start), (0.0, 0.0))
            results = []
            for call in (run, traced):
                leaf = images.clone().requires_grad_()
                (output,) = call(leaf)
                (gradient,) = torch.autograd.grad(output.square().sum(), leaf)
                results.append((output.detach(), gradient))
            for actual, expected in zip(*results, strict=True):
                torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)
        scaled_outputs = [
            m.weights(torch.rand(1, 32, side, side)).factors is not None for m in fused
        ]
        assert any(scaled_outputs) == large


def test_an_image_is_the_same_alone_in_a_batch_and_after_a_checkpoint(residual):
    options = {"steps": 40, "transforms": "jitter:0.05,channel_noise,branch_noise"}
    goals = [fv.channel("norm1", c) for c in range(5)]
    together = fv.render(residual, goals, seed=[7, 8, 9, 10, 11], **options)
    alone = fv.render(residual, goals[3], seed=10, **options)
    assert torch.equal(together.images[3], alone.images[0])
    mixed = fv.render(residual, [goals[3], fv.class_logit(2)], seed=[10, 0], **options)
    assert torch.equal(mixed.images[0], alone.images[0])  # a deeper companion changes nothing
    again = fv.render(residual, goals[3], seed=10, batch_size=1, **options)
    assert torch.equal(again.images, alone.images)


def test_the_seed_of_the_noise_is_its_own(residual):
    def images(transforms):
        return fv.render(residual, fv.channel("norm1", 1), steps=3, transforms=transforms).images

    assert torch.equal(images("channel_noise:0.2"), images("channel_noise:0.2:0"))
    assert not torch.equal(images("channel_noise:0.2"), images("channel_noise:0.2:1"))


def test_the_network_is_left_as_it_was(residual):
    before = {name: t.clone() for name, t in residual.net.state_dict().items()}
    images = torch.rand(1, 3, 16, 16)
    clean = residual(images)
    fv.render(residual, fv.class_logit(1), steps=3, transforms="channel_noise,branch_noise")
    assert all(torch.equal(t, before[n]) for n, t in residual.net.state_dict().items())
    assert torch.equal(residual(images), clean)
    assert not any(m._forward_hooks for m in residual.net.modules())


def test_text_and_defaults():
    assert parse("channel_noise,branch_noise:0.1:3") == (ChannelNoise(), BranchNoise(0.1, 3))
    assert (
        text((ChannelNoise(0.05), BranchNoise(0.1, 3))) == "channel_noise:0.05,branch_noise:0.1:3"
    )
    assert {type(t) for t in fv.transforms.standard()} >= {ChannelNoise, BranchNoise}


def test_the_default_leaves_out_what_has_nothing_to_act_on():
    plain = fv.Model(lambda images: images.mean((2, 3)), size=8)
    recorded = fv.render(plain, fv.channel("output", 0), steps=1).settings["transforms"]
    assert "noise:0.04" in recorded
    assert "channel_noise" not in recorded
    chain = fv.Model(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), size=16)
    recorded = fv.render(chain, fv.channel("output", 0), steps=1).settings["transforms"]
    assert "channel_noise" in recorded
    assert "branch_noise" not in recorded


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ("channel_noise:-1", "must not be negative"),
        ("channel_noise:nan", "must be a number"),
        ("channel_noise:0.1:0.5", "must be an integer"),
        ("channel_noise:0.1,channel_noise:0.2", "at most once each"),
    ],
)
def test_bad_settings(residual, transforms, message):
    with pytest.raises(FeatvizError, match=message):
        fv.render(residual, fv.class_logit(1), steps=1, transforms=transforms)


def test_nothing_to_act_on_is_said():
    plain = fv.Model(lambda images: images.mean((2, 3)), size=8)
    for name in ("channel_noise", "branch_noise"):
        with pytest.raises(FeatvizError, match=f"{name} has nothing to act on"):
            fv.render(plain, fv.channel("output", 0), steps=1, transforms=name)


def test_a_network_that_changes_its_layers_is_refused():
    class Moody(nn.Module):
        calls = 0

        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            Moody.calls += 1
            x = self.norm(self.conv(x))
            return self.norm(x) if Moody.calls > 3 else x

    model = fv.Model(Moody(), size=8)
    with pytest.raises(FeatvizError, match="calls the same layers in every pass"):
        fv.render(model, fv.channel("output", 0), steps=8, transforms="channel_noise")


def test_other_verbs_take_it(residual):
    images = torch.rand(2, 3, 16, 16)
    plain = fv.attack(residual, images, eps=0.1, steps=4, transforms="none")
    rough = fv.attack(residual, images, eps=0.1, steps=4, transforms="channel_noise:0.3")
    assert not torch.equal(plain.images, rough.images)
    fv.dream(residual, images[0], fv.layer("norm1"), octaves=1, steps=2, transforms="channel_noise")


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["render", "efficientnet_lite0", "channel:_blocks.1:3", "--steps", "1", "--size", "48"]
    assert main([*words, "--transforms", "channel_noise:0.1,branch_noise", "-o", "a.png"]) == 0
    assert main(["render", "--from", "a.png", "-o", "b.png"]) == 0
    first, second = (Image.open(tmp_path / name) for name in ("a.png", "b.png"))
    assert json.loads(first.text["featviz"]) == json.loads(second.text["featviz"])
    assert np.array_equal(first, second)
