"""Networks behind plain functions: found, evaluated, frozen, and left as they were."""

import functools

import pytest
import torch
from torch import nn

import featviz as fv
from featviz.errors import ModelError
from featviz.networks.closures import reached_modules


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.9)).train()


GLOBAL = network()


def by_global(x):
    return GLOBAL(x).mean((2, 3))


class Caller:
    def __init__(self, net):
        self.net = net

    def __call__(self, x):
        return self.net(x).mean((2, 3))

    def method(self, x):
        return self(x)


def functions(net):
    parts = {"body": net}

    def apply(model, x):
        return model(x).mean((2, 3))

    def outer(x):
        def inner(y):
            return net(y).mean((2, 3))

        return inner(x)

    return {
        "lambda": lambda x: net(x).mean((2, 3)),
        "default": lambda x, net=net: net(x).mean((2, 3)),
        "keyword": functools.partial(apply, net),
        "dictionary": lambda x: parts["body"](x).mean((2, 3)),
        "nested": outer,
        "through a function": lambda x: apply(net, x),
        "object": Caller(net),
        "method of an object": Caller(net).method,
        "bound forward": lambda x: net.forward(x).mean((2, 3)),
    }


@pytest.mark.parametrize("kind", list(functions(None)))
def test_the_network_of_a_function_is_evaluated_and_restored(kind):
    net = network()
    function = functions(net)[kind]
    assert reached_modules(function) == [net]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model = fv.Model(function, size=8)
    images = torch.rand(2, 3, 8, 8)
    scores = fv.channel("output", 1)(model, images)
    fv.render(model, fv.channel("output", 1), steps=2, size=8)
    assert all(module.training for module in net.modules())
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(parameter.grad is None for parameter in net.parameters())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    with torch.no_grad():
        expected = net.eval()(images).mean((2, 3))[:, 1]
    torch.testing.assert_close(scores, expected)


def test_global_names_and_shared_parts():
    assert reached_modules(by_global) == [GLOBAL]
    net, head = network(), nn.Linear(4, 2)
    body = net[0]
    assert {id(m) for m in reached_modules(lambda x: head(net(body(x))))} == {id(net), id(head)}
    model = fv.Model(lambda x: head(net(x).mean((2, 3))), size=8)
    fv.render(model, fv.class_logit(0), steps=1, size=8)
    assert net.training
    assert head.training
    assert int(net[1].num_batches_tracked) == 0


def test_functions_without_a_network_have_none():
    assert reached_modules(lambda x: x.relu()) == []
    assert reached_modules(torch.relu) == []
    recursive = []
    recursive.append(recursive)
    assert reached_modules(lambda x: recursive) == []


def test_a_copy_that_would_call_the_original_is_refused():
    net = network()
    with pytest.raises(ModelError, match="the network behind a plain function cannot be copied"):
        fv.Model(lambda x: net(x), size=8).copy()
    copied = fv.Model(Caller(net).method, size=8).copy()
    assert reached_modules(copied.net.function) != [net]
