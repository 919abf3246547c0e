"""Layers: what is listed, what is captured, how far the network runs."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import featviz as fv
from featviz.errors import LayerError
from featviz.networks.layers import split_address
from featviz.networks.probing import unit_axis
from tests import nets


def hooks(net):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def test_lite0_lists_every_named_module_that_runs(lite0):
    ran = set()
    handles = [
        m.register_forward_hook(lambda *_, name=n: ran.add(name))
        for n, m in lite0.net.named_modules()
        if n
    ]
    lite0(torch.zeros(1, 3, 224, 224))
    for handle in handles:
        handle.remove()
    table = lite0.layers()
    listed = {i.name for i in table}
    assert ran <= listed
    assert {"input", "output"} <= listed
    info = table.find("_blocks.10")
    assert (info.type, info.shape, info.units, info.axis) == ("MBConvBlock", (112, 14, 14), 112, 1)
    assert table.find("output").shape == (1000,)
    assert "_blocks.10" in str(table)


@pytest.mark.parametrize("name", ["_blocks.10", "_blocks.4._bn1", "_blocks.3._swish#0", "_fc"])
def test_activations_equal_plain_hooks(lite0, photos, name):
    module, call, _ = split_address(name)
    seen = []
    handle = dict(lite0.net.named_modules())[module].register_forward_hook(
        lambda *args: seen.append(args[2].detach().clone())
    )
    scaled = (photos * 255 - 127) / 128
    with torch.no_grad():
        lite0.net.eval()(scaled)
    handle.remove()
    found = lite0.activations(photos, [name])[name].detach()
    np.testing.assert_allclose(
        found.numpy(), seen[-1 if call is None else call].numpy(), rtol=1e-4, atol=1e-4
    )


def test_what_a_layer_returned_is_what_is_captured():
    net = nets.seeded(nets.InPlace).eval()
    model = fv.Model(net, size=4)
    images = torch.rand(2, 3, 4, 4)
    found = model.activations(images, ["conv", "norm", "act", "flat", "input", "output"])
    conv = net.conv(images)
    torch.testing.assert_close(found["conv"], conv)
    torch.testing.assert_close(found["norm"], net.norm(conv))
    torch.testing.assert_close(found["act"], (net.norm(conv) + 10).relu())
    torch.testing.assert_close(found["flat"], (net.norm(conv) + 10).relu().flatten(1))
    torch.testing.assert_close(found["output"], 2 * found["flat"])
    assert found["input"] is images
    for name in ("conv", "norm", "act", "flat"):  # alone, the pass ends there
        torch.testing.assert_close(model.activations(images, [name])[name], found[name])


def test_gradients_flow_through_captured_activations():
    model = fv.Model(nets.seeded(nets.InPlace), size=4)
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    found = model.activations(images, ["conv", "norm", "act"])
    for name in found:
        (gradient,) = torch.autograd.grad(found[name].sum(), images, retain_graph=True)
        assert gradient.abs().sum() > 0, name


def test_each_call_of_a_reused_module_has_a_name():
    net = nets.seeded(nets.Reused)
    model = fv.Model(net, size=2)
    assert [i.name for i in model.layers()] == [
        "input", "conv#0", "act#0", "conv#1", "conv", "act#1", "act", "output",
    ]  # fmt: skip
    assert model.layer("conv").calls == 2
    images = torch.rand(1, 3, 2, 2)
    found = model.activations(images, ["act#0", "conv", "act#1", "act"])
    first = net.act(net.conv(images))
    torch.testing.assert_close(found["act#0"], first)
    torch.testing.assert_close(found["conv"], net.conv(first))
    torch.testing.assert_close(found["act#1"], net.act(net.conv(first)))
    assert torch.equal(found["act"], found["act#1"])


def test_tuples_mappings_and_dataclasses_are_addressed():
    net = nets.seeded(nets.Structured)
    model = fv.Model(net, size=(4, 6), channels=3, logits="output[logits]")
    names = {i.name for i in model.layers()}
    assert {"lstm[0]", "lstm[1][0]", "both[mean]", "output[logits]", "output[hidden][1]"} <= names
    images = torch.rand(2, 3, 4, 6)
    found = model.activations(images, ["lstm[1][0]", "both[mean]", "output[logits]"])
    sequence, (h, _) = net.lstm(images.flatten(1, 2))
    torch.testing.assert_close(found["lstm[1][0]"], h)
    torch.testing.assert_close(found["both[mean]"], sequence.mean(1))
    torch.testing.assert_close(fv.class_logit(2)(model, images), net(images).logits[:, 2])
    with pytest.raises(LayerError, match=r"several tensors: pick one of lstm\[0\]"):
        model.activations(images, ["lstm"])
    with pytest.raises(LayerError, match=r"did you mean 'both\[mean\]'"):
        model.activations(images, ["both[men]"])


def test_the_pass_ends_at_the_deepest_layer_needed():
    net = nets.Deep(6)
    model = fv.Model(net, size=4)
    images = torch.rand(1, 3, 4, 4)
    model.activations(images, ["blocks.0", "blocks.2"])
    assert net.ran == 2  # the third block ran, and ended the pass
    model.activations(images, ["input"])
    assert net.ran == 2
    model.activations(images, ["blocks.2", "output"])
    assert net.ran == 6


def test_hooks_are_gone_afterwards(lite0, photos):
    before = hooks(lite0.net)
    lite0.layers((192, 160))
    lite0.activations(photos[:1], ["_blocks.2"])
    with pytest.raises(LayerError):
        lite0.activations(photos[:1], ["_blocks.2", "nowhere"])
    assert hooks(lite0.net) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("block.3", r"no layer 'block.3'; did you mean '_blocks.3'"),
        ("_swich", r"did you mean '_swish'"),
        ("_blocks.3._swish#2", r"runs 2 time"),
        ("_blocks.3[0]", "no layer"),
        ("a[", "cannot read layer name|no layer"),
    ],
)
def test_unknown_layers_name_the_nearest(lite0, photos, name, message):
    with pytest.raises(LayerError, match=message) as caught:
        lite0.activations(photos[:1], [name])
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("shape", "images", "axis"),
    [
        ((1, 8, 7, 7), (1, 3, 224, 224), 1),
        ((1, 7, 7, 8), (1, 3, 224, 224), 3),
        ((1, 7, 7, 7), (1, 3, 224, 224), 1),
        ((1, 14, 14, 20), (1, 3, 224, 320), 1),  # not square: no guessing
        ((1, 1280, 1, 1), (1, 3, 224, 224), 1),
        ((1, 197, 768), (1, 3, 224, 224), 2),
        ((1, 5, 100), (1, 2, 400), 1),  # a 1-D signal keeps its channels first
        ((1, 1000), (1, 3, 224, 224), 1),
        ((1, 4, 6, 6, 6), (1, 1, 12, 12, 12), 1),
    ],
)
def test_which_axis_counts_the_units(shape, images, axis):
    assert unit_axis(shape, images) == axis


def test_channels_last_maps_keep_their_layout_at_other_sizes():
    net = nets.seeded(nets.ChannelsLast)
    model = fv.Model(net, size=16)
    assert model.layer("norm").axis == 3
    assert model.layer("norm", (12, 16)).axis == 3
    images = torch.rand(2, 3, 12, 16)
    expected = net(images)[..., 4].mean((1, 2))
    torch.testing.assert_close(fv.channel("norm", 4)(model, images), expected)
    torch.testing.assert_close(fv.neuron("norm", 4, 5, 7)(model, images), net(images)[:, 5, 7, 4])


class Shadow(torch.nn.Module):
    """A layer that is called as the network's output is."""

    def __init__(self):
        super().__init__()
        self.output = torch.nn.Conv2d(3, 5, 3)
        self.fc = torch.nn.Linear(5, 2)

    def forward(self, x):
        return self.fc(self.output(x).mean((2, 3)))


def test_a_module_called_output_has_another_name():
    model = fv.Model(nets.seeded(Shadow), size=8)
    assert [i.name for i in model.layers()] == ["input", "net.output", "fc", "output"]
    images = torch.rand(2, 3, 8, 8)
    found = model.activations(images, ["net.output", "output"])
    assert found["net.output"].shape == (2, 5, 6, 6)
    assert found["output"].shape == (2, 2)


def test_layers_without_a_batch_axis_are_refused():
    swapped = fv.Model(lambda x: x.mean((2, 3)).T, size=4)
    with pytest.raises(
        LayerError, match="'output' cannot be used: its first axis is not the batch"
    ):
        fv.layer("output")(swapped, torch.rand(2, 3, 4, 4))


def test_one_value_a_sample_is_one_unit():
    model = fv.Model(lambda x: x.mean((1, 2, 3)), size=4)
    images = torch.rand(2, 3, 4, 4)
    expected = images.mean((1, 2, 3))
    for text in ("channel:output:0", "class:0", "neuron:output:0", "direction:output:[1]"):
        torch.testing.assert_close(fv.objective(text)(model, images), expected)
    total = fv.Model(lambda x: x.mean(), size=4)
    assert [i.name for i in total.layers()] == ["input"]
    with pytest.raises(LayerError, match="no layer 'output'"):
        fv.class_logit(0)(total, images)


def test_the_table_does_not_need_the_compiler():
    """Importing it takes longer than all else that ``featviz layers`` does."""
    code = (
        "import sys, torch, featviz as fv\n"
        "model = fv.Model(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), size=8)\n"
        "assert len(model.layers()) == 4\n"
        "fv.examples(model, torch.rand(3, 3, 8, 8), 'channel:0:1')\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
