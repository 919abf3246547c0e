"""A traced pass computes what the network computes, with less; what cannot be traced says so."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv
from featviz.errors import FeatvizWarning
from featviz.networks.gradients import guided_relu, redirected_relu
from featviz.optim import tracing as T
from featviz.optim.clipping import Clipped
from featviz.optim.fusion import FusedConvolution
from featviz.optim.gradient_evaluator import GradientEvaluator
from featviz.optim.parts import Parts
from tests import nets


def passes(model, names, images):
    """The network's own pass and the traced one, in a session of the model."""
    table = model.layers(tuple(images.shape[2:]))

    def run(x):
        found = model.capture(x, names, table)
        return [found[name] for name in names]

    return run, T.trace(run, images)


def gradients(call, images):
    shown = images.detach().requires_grad_()
    found = call(shown)
    total = sum((a * torch.arange(a.numel()).cos().view_as(a)).sum() for a in found)
    return [a.detach() for a in found], torch.autograd.grad(total, shown)[0]


def close(run, traced, images):
    (wanted, slope), (found, ours) = gradients(run, images), gradients(traced, images)
    for one, other in zip(wanted, found, strict=True):
        assert (one - other).abs().max() <= 1e-4 * one.abs().max()
    assert (slope - ours).norm() <= 0.02 * slope.norm()  # rounding crosses kinks of ReLUs


@pytest.mark.parametrize(
    "layers",
    [
        ["_blocks.3"],
        ["_blocks.10", "_blocks.4"],
        ["_blocks.2._bn1", "_blocks.2._depthwise_conv", "_conv_stem"],
        ["output", "input"],
    ],
    ids=" ".join,
)
def test_the_real_network(lite0, photos, layers):
    with lite0.session():
        run, traced = passes(lite0, layers, photos[:2])
        close(run, traced, photos[1:3])


def test_what_is_folded_and_what_is_not(lite0, photos):
    def kinds(layers):
        with lite0.session():
            _, traced = passes(lite0, layers, photos[:1])
        nodes = [n for n in traced.graph.graph.nodes if n.op == "call_function"]
        return [str(n.target) for n in nodes], list(traced.graph.children())

    calls, children = kinds(["_blocks.3"])
    assert not any("batch_norm" in c or "hardtanh" in c for c in calls)
    assert sum("pad" in c for c in calls) == 1  # the stem's is one-sided and not depthwise
    assert all(isinstance(c, FusedConvolution) for c in children)
    # A layer that was asked for keeps its own activation.
    calls, _ = kinds(["_blocks.2._depthwise_conv"])
    assert sum("batch_norm" in c for c in calls) == 0
    calls, _ = kinds(["_blocks.2._depthwise_conv", "_blocks.3"])
    assert sum("batch_norm" in c for c in calls) == 1


class Mixture(nn.Module):
    """Every form that the simplifications know, and near misses."""

    def __init__(self, axes: int, in_place: bool) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1]
        self.axes = axes
        self.one, self.norm1 = conv(3, 6, 3, bias=True), norm(6)
        self.two, self.norm2 = conv(6, 6, 4, stride=2, groups=6, bias=False), norm(6, affine=False)
        self.three, self.norm3 = conv(6, 4, 3, padding=2, dilation=2), norm(4)
        self.four = conv(4, 4, 3, padding=1, groups=2)
        self.last, self.norm4 = conv(4, 5, 1), norm(5, track_running_stats=False)
        self.act, self.act6 = nn.ReLU(in_place), nn.ReLU6(in_place)

    def forward(self, x):
        x = self.act(self.norm1(self.one(F.pad(x, (1, 1) * self.axes))))
        x = self.act6(self.norm2(self.two(F.pad(x, (0, 2) * self.axes))))
        y = self.norm3(self.three(F.pad(x, (2, 2) * self.axes, value=1.0)))
        y = self.act(y) + self.four(F.relu(y * 2)).sigmoid()
        return F.hardtanh(self.last(F.pad(y, (1, 1) * self.axes))) + self.act6(
            self.norm4(self.last(F.pad(y, (1, 1) * self.axes)))
        )


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_every_form(axes, in_place):
    net = nets.seeded(lambda: Mixture(axes, in_place))
    with torch.no_grad():
        for module in net.modules():
            if getattr(module, "running_var", None) is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    model = fv.Model(net, size=(9,) * axes, channels=3)
    images = torch.rand(2, 3, *(9,) * axes, generator=torch.Generator().manual_seed(0))
    state = {name: t.clone() for name, t in net.state_dict().items()}
    with model.session():
        run, traced = passes(model, ["output", "three"], images)
        assert isinstance(traced, T.Traced)
        close(run, traced, images.flip(0))
    assert all(torch.equal(t, state[name]) for name, t in net.state_dict().items())


@pytest.mark.parametrize(
    "make", [nets.tokens, lambda: fv.Model(nets.seeded(nets.ChannelsLast), size=(8, 8), channels=3)]
)
def test_tokens_and_other_layouts(make):
    model = make()
    images = torch.rand(3, 3, *model.size)
    with model.session():
        run, traced = passes(model, ["output"], images)
        assert isinstance(traced, T.Traced)
        close(run, traced, images)


def test_redirection_reaches_dead_units_through_a_traced_pass():
    model = fv.Model(nets.seeded(nets.Dead), size=(8, 8), channels=3)
    images = torch.rand(1, 3, 8, 8)
    goal = fv.channel("act", 1)

    def climb(traced):
        evaluator = GradientEvaluator(model, goal, (8, 8), channels=3, batch=1, traced=traced)
        evaluator.redirect(redirected_relu())
        with model.session():
            return evaluator.gradients(images, images, torch.tensor(0.0))

    eager, traced = climb(False), climb(True)
    for one, other in zip(eager, traced, strict=True):
        torch.testing.assert_close(one, other)
    assert traced.redirected.all()
    assert traced.by_seen.abs().sum() > 0


@pytest.mark.parametrize("unit", ["channel:_blocks.4:{}", "class:{}"])
def test_a_picture_is_the_same_to_the_bit_alone_and_among_others(lite0, unit, monkeypatch):
    made = []
    wide = Parts.merged
    monkeypatch.setattr(Parts, "merged", lambda self: made.append(self) or wide(self))
    goals = [unit.format(c) for c in range(6)]
    several = fv.render(lite0, goals, size=96, steps=T.PAYS, seed=[5] * 6)
    for index in (1, 5):  # among four that go through together, and one that is left over
        alone = fv.render(lite0, goals[index], size=96, steps=T.PAYS, seed=5)
        assert torch.equal(alone.images[0], several.images[index])
        assert torch.equal(alone.history[:, 0], several.history[:, index])
    assert [len(part) for part in made[0].current] == [4, 1, 1]


def test_a_traced_picture_is_as_near_as_rounding_lets_it_be(lite0, monkeypatch):
    """Gradients of a ReLU network are not continuous, so that a climb enlarges any rounding: the
    image is as far from the untraced one as that is from its own with the input * (1 ± 1e-5)."""
    given = {"objective": "channel:_blocks.4:7", "size": 96, "steps": T.PAYS}
    traced = fv.render(lite0, **given)
    monkeypatch.setattr("featviz.optim.stages.PAYS", 10**9)
    plain = fv.render(lite0, **given)
    normalize = fv.Model.normalize
    rounded = []
    for factor in (1 + 1e-5, 1 - 1e-5, 1 + 2e-5):
        monkeypatch.setattr(fv.Model, "normalize", lambda self, x, f=factor: normalize(self, x) * f)
        rounded.append(fv.render(lite0, **given))
    far, *others = ((r.images - plain.images).abs().mean() for r in (traced, *rounded))
    assert far < 2 * max(others) < 0.1
    assert traced.history[0, 0].item() == pytest.approx(plain.history[0, 0].item(), rel=1e-4)
    assert traced.scores[0].item() == pytest.approx(plain.scores[0].item(), rel=0.05)


def test_overridden_gradients_are_not_traced_away(tiny):
    with guided_relu():
        inside = fv.render(tiny, "channel:second:1", steps=T.PAYS)
    outside = fv.render(tiny, "channel:second:1", steps=T.PAYS)
    assert not torch.equal(inside.images, outside.images)


class Branches(nn.Module):
    def forward(self, x):
        return x * 2 if x.mean() > 0 else x * 3


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round() + 0 * x

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class StraightThrough(nn.Module):
    def forward(self, x):
        return _Straight.apply(4 * x)


@pytest.mark.parametrize("net", [Branches(), StraightThrough()], ids=["branch", "gradient"])
def test_what_cannot_be_traced_runs_as_it_is_and_says_so(net):
    model = fv.Model(net, size=(6, 6), channels=3)
    with pytest.warns(FeatvizWarning, match="cannot be traced and runs untraced"):
        result = fv.render(model, "layer:output", steps=T.PAYS, transforms=())
    assert result.scores[0] > result.history[0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fv.render(model, "layer:output", steps=T.PAYS - 1)  # too short to be traced


def test_new_weights_are_seen_by_the_next_run(lite0):
    model = nets.tiny()
    before = fv.render(model, "channel:second:1", steps=T.PAYS)
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.data.mul_(-1.5)  # leaves no mark on the tensor's version
    after = fv.render(model, "channel:second:1", steps=T.PAYS)
    assert not torch.equal(before.images, after.images)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:torch.*")  # dynamo looks at .grad of non-leaves
def test_a_compiled_pass_makes_nearly_the_same_picture(lite0):
    given = {"size": 64, "steps": 6}
    plain = fv.render(lite0, "channel:_blocks.2:7", **given)
    made = fv.render(lite0, "channel:_blocks.2:7", compile=True, **given)
    assert (made.images - plain.images).abs().mean() < 2 / 255


def test_relus_without_a_convolution_before_them():
    relu = Clipped((0.0, float("inf")), False, T.Switch())
    values = torch.randn(2, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(relu(values).sum(), values)
    assert torch.equal(slope, (values > 0).float())
