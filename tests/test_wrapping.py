"""Networks that are called in their own way, compiled, scripted, checkpointed, quantized, frozen."""

import collections
import warnings

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import featviz as fv
from featviz.errors import FeatvizError, LayerError, ModelError
from tests import nets

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def layers():
    def make():
        body = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, 2, 1), nn.ReLU()]
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))

    return nets.seeded(make).eval()


PLAIN = layers()


def state(net):
    modules = list(net.modules())
    return (
        [m.training for m in modules],
        [p.requires_grad for p in net.parameters()],
        [len(getattr(m, "_forward_hooks", ())) for m in modules],
        [getattr(m, "grad_checkpointing", None) for m in modules],
        [getattr(m, "_compiled_call_impl", None) for m in modules],
        {name: t.clone() for name, t in net.state_dict().items() if isinstance(t, torch.Tensor)},
    )


def same(before, after):
    assert before[:-1] == after[:-1]
    assert all(torch.equal(before[-1][n], after[-1][n]) for n in before[-1])


def check_all(model, logits, inner=None, runs=(2, 40)):
    """Scores, rendering, attack and attribution against the plain network."""
    before = state(model.net)
    expected = logits(IMAGES)
    torch.testing.assert_close(fv.class_logit(1)(model, IMAGES), expected[:, 1])
    if inner:
        hidden = PLAIN[:3](IMAGES)[:, 4].mean((1, 2))
        torch.testing.assert_close(fv.channel(inner, 4)(model, IMAGES), hidden)
        assert fv.render(model, fv.channel(inner, 4), steps=2).scores.isfinite()
    for steps in runs:  # as it is, and traced
        result = fv.render(model, fv.class_logit(1), steps=steps)
        torch.testing.assert_close(result.scores, logits(result.images)[:, 1], rtol=1e-3, atol=1e-4)
    assert fv.attack(model, IMAGES, steps=2).images.shape == IMAGES.shape
    leaf = IMAGES[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(logits(leaf)[:, 1].sum(), leaf)
    found = fv.attribute(model, IMAGES[:1], fv.class_logit(1), method="saliency").attributions
    torch.testing.assert_close(found.abs(), gradient.abs(), rtol=1e-3, atol=1e-6)
    same(before, state(model.net))


class Peculiar(nn.Module):
    """Takes keywords, channels last, and a second input of the same batch; returns a mapping."""

    def __init__(self):
        super().__init__()
        self.body = layers()

    def forward(self, *, pixels, ids):
        logits = self.body(pixels.movedim(-1, 1)) + ids[:, None]
        return {"loss": logits.mean(), "aux": logits[:, :1], "scores": logits}


def peculiar_call(net, x):
    return net(pixels=x.movedim(1, -1), ids=torch.arange(2.0)[-1:].expand(len(x)))


def test_call_says_how_a_network_is_called():
    net = Peculiar().train()
    model = fv.Model(net, size=16, call=peculiar_call, logits="output[scores]")
    check_all(model, lambda x: PLAIN(x) + 1, "body.2")
    assert "body.6" in {info.name for info in model.layers()}
    copied = model.copy()
    torch.testing.assert_close(fv.class_logit(2)(copied, IMAGES), PLAIN(IMAGES)[:, 2] + 1)
    with pytest.raises(ModelError, match=r"fv.Model\(net, call=lambda net, x: …\)"):
        fv.Model(net, size=16).layers()
    with pytest.raises(ModelError, match="call must be a function"):
        fv.Model(net, call=3)
    with pytest.raises(ModelError, match="cannot be exported"):
        fv.zoo.export(model, "net.pt2")


def test_a_signal_without_a_channel_axis():
    net = nets.seeded(
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 32)), nn.Conv1d(1, 4, 5), nn.Flatten(), nn.Linear(112, 3)
        )
    )
    model = fv.Model(net, size=(32,), call=lambda net, x: net(x[:, 0]))
    signals = torch.rand(2, 1, 32)
    torch.testing.assert_close(fv.class_logit(1)(model, signals), net(signals[:, 0])[:, 1])
    assert model.layer("1").axis == 1
    assert fv.render(model, fv.class_logit(1), steps=2).images.shape == (1, 1, 32)


def test_other_networks_that_call_uses_are_evaluated_frozen_and_restored():
    head = nn.Sequential(nn.Dropout(0.9), nn.Linear(5, 4)).train()
    model = fv.Model(layers(), size=16, call=lambda net, x: head(net(x)))
    assert torch.equal(model(IMAGES), model(IMAGES))
    assert head.training
    assert head[1].weight.requires_grad
    with pytest.raises(ModelError, match=r"one nn.Module that holds them all"):
        model.copy()


def test_several_outputs_say_which_ones_may_be_logits():
    model = fv.Model(Peculiar(), size=16, call=peculiar_call)
    for verb in (
        lambda: fv.attack(model, IMAGES, steps=1),
        lambda: fv.render(model, fv.class_logit(1), steps=1),
        lambda: fv.attribute(model, IMAGES, fv.class_logit(1)),
    ):
        with pytest.raises(LayerError, match=r"fv.Model\(net, logits='output\[scores\]'\)"):
            verb()


@pytest.mark.parametrize("which", ["whole", "part", "in place"])
def test_compiled_networks_run_as_they_are_written(which):
    net = layers()
    if which == "part":
        net[2] = torch.compile(net[2])
    elif which == "in place":
        net.compile()
    model = fv.Model(torch.compile(net) if which == "whole" else net, size=16)
    names = [info.name for info in model.layers()]
    assert names == ["input", *map(str, range(7)), "output"]
    check_all(model, PLAIN, "2")


def test_scripted_networks_show_their_output_only():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted, traced = torch.jit.script(layers()), torch.jit.trace(layers(), IMAGES)
        part = layers()
        part[2] = torch.jit.script(part[2])
    for net in (scripted, traced):
        model = fv.Model(net, size=16)
        assert [info.name for info in model.layers()] == ["input", "output"]
        check_all(model, PLAIN, runs=(2,))  # torch.fx does not trace it
        with pytest.raises(LayerError, match=r"is scripted .* give its nn.Module"):
            fv.render(model, fv.channel("2", 1), steps=1)
    model = fv.Model(part, size=16)
    assert "2" not in {info.name for info in model.layers()}
    check_all(model, PLAIN, runs=(2,))  # torch.fx does not trace it


@pytest.mark.filterwarnings("ignore:quantized")  # torch's own
def test_a_quantized_network_says_so():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.ao.quantization.quantize_dynamic(layers(), {nn.Linear}, dtype=torch.qint8)
    model = fv.Model(net, size=16)
    hidden = PLAIN[:3](IMAGES)[:, 4].mean((1, 2))
    torch.testing.assert_close(fv.channel("2", 4)(model, IMAGES), hidden)
    for verb in (
        lambda: fv.attack(model, IMAGES, steps=1),
        lambda: fv.render(model, fv.class_logit(1), steps=1),
        lambda: fv.attribute(model, IMAGES, fv.class_logit(1), method="saliency"),
    ):
        with pytest.raises(FeatvizError, match=r"quantized layers .* load it in float"):
            verb()


class Closed(nn.Module):
    def __init__(self, context):
        super().__init__()
        self.body, self.context = layers(), context

    def forward(self, x):
        with self.context():
            return self.body(x)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_networks_that_disable_gradients_say_so(context):
    model = fv.Model(Closed(context), size=16)
    for verb in (
        lambda: fv.attack(model, IMAGES, steps=1),
        lambda: fv.render(model, fv.channel("body.2", 1), steps=1),
        lambda: fv.attribute(model, IMAGES, fv.class_logit(1), method="saliency"),
    ):
        with pytest.raises(FeatvizError, match=r"disables gradients .* call="):
            verb()
    opened = fv.Model(model.net, size=16, call=lambda net, x: net.body(x))
    check_all(opened, PLAIN, "body.2")


class Checkpointed(nn.Module):
    """Recomputes its body, as the blocks of timm and transformers do while the flag is set."""

    def __init__(self, reentrant, grad_checkpointing=True):
        super().__init__()
        self.body, self.reentrant = layers(), reentrant
        self.grad_checkpointing = grad_checkpointing

    def forward(self, x):
        if self.grad_checkpointing:
            return checkpoint(self.body, x, use_reentrant=self.reentrant)
        return self.body(x)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_is_switched_off_meanwhile(reentrant):
    check_all(fv.Model(Checkpointed(reentrant), size=16), PLAIN, "body.2")


@pytest.mark.filterwarnings("ignore:None of the inputs")  # torch's own
def test_checkpointing_that_cannot_be_switched_off_says_so():
    net = Checkpointed(True)
    net.grad_checkpointing = 1  # not a flag that is known
    with pytest.raises(ModelError, match="switch checkpointing off in the network"):
        fv.attack(fv.Model(net, size=16), IMAGES, steps=1)


Result = collections.namedtuple("Result", "logits hidden")


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = layers()

    def forward(self, x):
        return Result(self.body(x), [self.body[0](x)])


def test_named_tuples():
    model = fv.Model(Named(), size=16, logits="output[0]")
    check_all(model, PLAIN, "body.2")
    assert model.layer("output[1][0]").axis == 1


def test_objectives_of_other_layers_need_no_logits_among_several_outputs():
    model = fv.Model(Peculiar(), size=16, call=peculiar_call)
    result = fv.attack(model, IMAGES, away=fv.channel("body.2", 4), steps=2)
    assert (result.before == -1).all()
    assert result.success.all()
    with pytest.raises(LayerError, match=r"logits='output\[scores\]'"):
        fv.attribute(model, IMAGES, method="saliency")
