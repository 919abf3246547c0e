"""The model: preprocessing, and that the network comes back as it was."""

import pytest
import torch
from torch import nn

import featviz as fv
from featviz.errors import ModelError
from tests import nets


def snapshot(net: nn.Module):
    """Everything about a network that a user could notice."""
    return (
        {k: v.clone() for k, v in net.state_dict().items()},
        {n: (id(p), p.requires_grad, p.grad) for n, p in net.named_parameters()},
        {n: m.training for n, m in net.named_modules()},
        {n: (dict(m._forward_hooks), dict(m._forward_pre_hooks)) for n, m in net.named_modules()},
        {n: getattr(m, "inplace", None) for n, m in net.named_modules()},
    )


def assert_same(before, after):
    assert before[0].keys() == after[0].keys()
    for name in before[0]:
        assert torch.equal(before[0][name], after[0][name]), name
    assert before[1:] == after[1:]


@pytest.fixture
def mixed():
    """A network in a state of its own: partly training, partly frozen, with a user's hook."""
    net = nets.seeded(nets.InPlace).train()
    net.norm.eval()
    net.conv.weight.requires_grad_(False)
    net.conv.register_forward_hook(lambda *_: None)
    return net


def stop(step):
    raise KeyboardInterrupt


def fail(step):
    raise RuntimeError("from a callback")


def test_render_leaves_the_network_as_it_was(mixed):
    before = snapshot(mixed)
    fv.render(fv.Model(mixed, size=8), fv.channel("act", 1), steps=3)
    assert_same(before, snapshot(mixed))


def test_also_after_ctrl_c(mixed):
    before = snapshot(mixed)
    result = fv.render(fv.Model(mixed, size=8), fv.channel("act", 1), steps=3, callbacks=[stop])
    assert result.interrupted
    assert_same(before, snapshot(mixed))


def test_also_after_an_exception(mixed):
    before = snapshot(mixed)
    with pytest.raises(RuntimeError, match="from a callback"):
        fv.render(fv.Model(mixed, size=8), fv.channel("act", 1), steps=3, callbacks=[fail])
    assert_same(before, snapshot(mixed))


def test_also_when_the_network_itself_fails(mixed):
    model = fv.Model(mixed, size=8)
    before = snapshot(mixed)
    with pytest.raises(ModelError, match=r"cannot take images of shape \(1, 5, 8, 8\)"):
        fv.Model(mixed, size=8, channels=5).layers()
    with pytest.raises(fv.FeatvizError):
        model.activations(torch.zeros(1, 3, 8, 8), ["conv", "nowhere"])
    assert_same(before, snapshot(mixed))


def test_lite0_comes_back_from_training_mode(lite0):
    net = lite0.net
    net.train()
    before = snapshot(net)
    fv.render(lite0, "channel:_blocks.1:3", steps=2, size=64)
    assert_same(before, snapshot(net))
    net.eval()


def test_preprocessing_is_applied_once():
    net = nn.Conv2d(3, 3, 1)
    model = fv.Model(net, mean=(0.1, 0.2, 0.3), std=(0.5, 1, 2), size=2)
    images = torch.rand(2, 3, 2, 2)
    mean, std = torch.tensor(model.mean).view(3, 1, 1), torch.tensor(model.std).view(3, 1, 1)
    torch.testing.assert_close(model(images), net((images - mean) / std))
    other = fv.Model(net, mean=127, std=128, range=(0, 255), size=2, channels=3)
    torch.testing.assert_close(other(images), net((images * 255 - 127) / 128))
    torch.testing.assert_close(fv.Model(net, size=2)(images), net(images))


def test_lite0_knows_a_cat(lite0, photos):
    assert lite0(photos).argmax(1)[:2].tolist() == [285, 967]  # Egyptian cat, espresso


def test_a_bound_method_knows_its_network():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5)).train()
    model = fv.Model(net.forward, size=8)
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(model(images), model(images))
    assert net[1].training


def test_one_number_in_a_sequence_is_one_channel():
    assert fv.Model(nn.Identity(), mean=[0.13], std=[0.3]).channels == 1
    assert fv.Model(nn.Identity(), mean=0.13, std=0.3).channels == 3


def test_any_callable_is_a_network():
    model = fv.Model(lambda x: x.mean((2, 3)), size=4)
    assert [i.name for i in model.layers()] == ["input", "output"]
    assert fv.class_logit(1)(model, torch.ones(2, 3, 4, 4)).tolist() == [1, 1]


def test_another_device_gets_a_copy(tiny):
    assert tiny.on(torch.device("cpu")) is tiny
    moved = tiny.on(torch.device("meta"))
    assert moved.device.type == "meta"
    assert tiny.device.type == "cpu"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fv.Model(3), "nn.Module or callable, not int"),
        (lambda: fv.Model(nn.Identity(), size=0), "size must be positive"),
        (lambda: fv.Model(nn.Identity(), mean=(0, 0), std=(1, 1, 1)), "numbers for 3 channels"),
        (lambda: fv.Model(nn.Identity(), std=0), "std must be positive"),
        (lambda: fv.Model(nn.Identity(), channels=-1), "channels must be positive"),
        (lambda: fv.Model(nn.Linear(5, 5), size=4).layers(), "cannot take images of shape"),
    ],
)
def test_bad_models_are_refused_in_one_line(make, message):
    with pytest.raises(ModelError, match=message) as caught:
        make()
    assert len(str(caught.value).splitlines()) == 1


def test_repeated_use_leaves_no_memory_behind(tiny):
    """Hooks, graphs or stored activations that stay would add live tensors with each call."""
    import gc

    def live():
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    def use():
        fv.render(tiny, fv.channel("second", 1), steps=2)
        tiny.activations(torch.rand(1, 2, 8, 8), ["first", "output"])

    use()
    before = live()
    for _ in range(5):
        use()
    assert live() - before < 5  # one tensor a call would be five


def test_a_first_pass_in_inference_mode_spoils_nothing():
    model = nets.tiny(channels=3)
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model(images).clone()
    leaf = images.requires_grad_()
    model(leaf).sum().backward()
    assert leaf.grad.abs().sum() > 0
    torch.testing.assert_close(before.clone(), model(images).detach())
