"""What modules were given, as layers: against plain pre-hooks, in place, and in every verb."""

import pytest
import torch
from torch import nn

import featviz as fv
from featviz.checks import path
from featviz.errors import LayerError
from tests import nets


def given(model, name, images, call=-1, argument=0):
    """What a module was given, by a pre-hook of our own."""
    kept = []
    module = dict(model.net.named_modules())[name]
    handle = module.register_forward_pre_hook(
        lambda m, args, kwargs: kept.append(
            (args[argument] if isinstance(argument, int) else kwargs[argument]).clone()
        ),
        with_kwargs=True,
    )
    model(images)
    handle.remove()
    return kept[call]


class Attends(nn.Module):
    """Attention, a module that runs twice, a ReLU in place, and a module named ``in``."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.twice = nn.Linear(8, 8)
        self.block = nn.ModuleDict({"in": nn.Linear(8, 8)})
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.act(self.conv(x))
        x = x.flatten(2).transpose(1, 2)
        x = self.attn(x + 1, key=x + 2, value=x + 3)[0]
        x = self.twice(self.twice(x).tanh())
        return self.head(self.block["in"](x).mean(1))


@pytest.fixture
def model():
    return fv.Model(nets.seeded(Attends), size=8)


@pytest.fixture
def images():
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("layer", "arguments", "axis"),
    [
        ("conv.in", ("conv",), 1),
        ("attn.in[0]", ("attn",), 2),
        ("attn.in[key]", ("attn", -1, "key"), 2),
        ("attn.in[value]", ("attn", -1, "value"), 2),
        ("twice.in", ("twice",), 2),
        ("twice.in#0", ("twice", 0), 2),
        ("head.in", ("head",), 1),
    ],
)
def test_inputs_are_those_of_a_pre_hook(model, images, layer, arguments, axis):
    found = model.activations(images, layer)[layer]
    name, *rest = arguments
    expected = given(model, name, images, *rest)
    torch.testing.assert_close(found, expected)
    info = model.layer(layer)
    assert info.axis == axis
    assert info.units == expected.shape[axis]
    goal = fv.channel(layer, 1)
    reference = expected.movedim(axis, 1)[:, 1].reshape(len(images), -1).mean(1)
    torch.testing.assert_close(goal(model, images), reference)


def test_on_lite0(lite0, photos):
    features = lite0.activations(photos, "_fc.in")["_fc.in"]
    torch.testing.assert_close(features, given(lite0, "_fc", photos))
    weights = dict(lite0.net.named_modules())["_fc"].weight[285]
    goal = fv.direction("_fc.in", weights)
    by_hand = features @ weights
    torch.testing.assert_close(goal(lite0, photos), by_hand, rtol=1e-4, atol=1e-4)
    made = fv.render(lite0, goal, steps=40, size=64)  # traced
    assert made.scores[0] > by_hand.max()


def test_an_input_that_its_module_overwrites_is_what_it_was(model, images):
    before = given(model, "act", images)
    assert (before < 0).any()
    torch.testing.assert_close(model.activations(images, "act.in")["act.in"], before)
    both = model.activations(images, ["act.in", "act", "output"])
    torch.testing.assert_close(both["act"], before.relu())
    torch.testing.assert_close(both["output"], model(images))


def test_later_layers_have_gradients_by_an_input(model, images):
    goal = fv.channel("head.in", 2)
    found = model.capture(images.requires_grad_(), ["twice.in#0", "head"], model.layers())
    (slope,) = torch.autograd.grad(found["head"][:, 1].sum(), found["twice.in#0"])
    assert slope.abs().sum() > 0
    assert goal(model, images).requires_grad


def test_the_pass_ends_before_the_module(model, images):
    model.layers()  # which runs all of it
    ran = []
    model.net.head.register_forward_hook(lambda *_: ran.append("head"))
    model.activations(images, "head.in")
    assert not ran


def test_modules_named_in_come_first(model, images):
    found = model.activations(images, ["block.in", "block.in.in"])
    torch.testing.assert_close(found["block.in"], model.net.block["in"](found["block.in.in"]))


def test_they_are_not_listed_and_wrong_names_are_answered(model):
    assert not any(".in" in i.name for i in model.layers() if i.name != "block.in")
    with pytest.raises(LayerError, match=r"pick one of attn.in\[0\], attn.in\[key\], attn.in\[val"):
        fv.render(model, "channel:attn.in:1", steps=1)
    with pytest.raises(LayerError, match=r"did you mean 'head\.in'"):
        fv.render(model, "channel:heed.in:1", steps=1)
    with pytest.raises(LayerError, match=r"did you mean 'twice\.in#1'"):
        model.layer("twice.in#2")


@pytest.mark.parametrize("objective", ["channel:twice.in:3", "neuron:conv.in:1", "layer:head.in"])
def test_every_verb_takes_them(model, images, objective):
    model.classes = ("a", "b", "c", "d")
    assert fv.render(model, objective, steps=2).scores.isfinite().all()
    assert (
        fv.attribute(model, images[:1], objective, method="saliency").attributions.isfinite().all()
    )
    assert fv.examples(model, images, objective, k=1).count == 2
    assert fv.dream(model, images[0], objective, steps=1, octaves=1).images.isfinite().all()
    assert str(fv.objective(objective)) == objective


def in_place(inplace):
    def build():
        layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=inplace), nn.Conv2d(4, 4, 3)]
        return nn.Sequential(
            *layers,
            nn.ReLU(inplace=inplace),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 3),
        )

    return fv.Model(nets.seeded(build), size=8, classes=("a", "b", "c"))


def test_the_input_of_a_module_in_place_beside_a_later_layer():
    goal = "channel:3.in:1 + class:1"
    made = [
        fv.render(in_place(i), goal, steps=40, transforms="channel_noise:0.05")
        for i in (True, False)
    ]
    torch.testing.assert_close(made[0].images, made[1].images, rtol=0, atol=1e-3)
    assert in_place(True).layer("3.in").overwritten
    assert not in_place(False).layer("3.in").overwritten


def test_maps_and_paths_of_an_input():
    model = in_place(False)
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = fv.attribute(model, images, "channel:2.in:1", method="grad_cam")
    same = fv.attribute(model, images, "channel:1:1", method="grad_cam", layer="1")
    assert found.settings["layer"] == "1"
    torch.testing.assert_close(found.attributions, same.attributions)
    with pytest.raises(fv.FeatvizError, match=r"'3.in' is not; name a module"):
        fv.attribute(model, images, "class:1", method="grad_cam", layer="3.in")
    table = model.layers()
    assert [table.position(n) for n in ("0.in", "1", "2.in", "3.in")] == [0, 2, 2, 3]
    assert [i.name for i in path.layers(model, fv.objective("channel:2.in:1"))] == [
        i.name for i in path.layers(model, fv.objective("channel:1:1"))
    ]
