"""TracIn and influence functions: by hand, against retraining, and with planted answers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv
from featviz.attribution.training_images import influence, tracin
from featviz.errors import FeatvizError
from tests import nets


def data(count, seed=0, size=(2, 3)):
    rng = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, *size, generator=rng, dtype=torch.float64)
    return images, (images.flatten(1)[:, 0] * 3).long().clamp_max(2)


def linear(size=(2, 3)) -> fv.Model:
    net = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 3))).double()
    return fv.Model(net, size=size, channels=1, mean=0.0, std=1.0)


def test_tracin_of_a_linear_classifier_by_hand():
    """The gradient by W is (p - y) xᵀ, so that a product is ((p - y) · (p' - y')) (x · x' + 1)."""
    model = linear()
    (x, y), (q, z) = data(5), data(2, seed=1)
    states = [nets.seeded(lambda: nn.Linear(6, 3), s).double().state_dict() for s in (3, 4)]
    states = [{f"1.{k}": v for k, v in state.items()} for state in states]
    want = 0
    for state, rate in zip(states, (0.5, 2.0), strict=True):
        rest = []
        for images, labels in ((q, z), (x, y)):
            rows = images.flatten(1)
            logits = rows @ state["1.weight"].T + state["1.bias"]
            rest.append((logits.softmax(1) - F.one_hot(labels, 3), rows))
        (a, rows), (b, others) = rest
        want = want + rate * (a @ b.T) * (rows @ others.T + 1)
    before = {k: v.clone() for k, v in model.net.state_dict().items()}
    found = tracin(model, states, x, y, q, z, rates=[0.5, 2.0])
    torch.testing.assert_close(found, want)
    assert all(torch.equal(v, before[k]) for k, v in model.net.state_dict().items())
    assert all(p.requires_grad for p in model.net.parameters())


def test_tracin_finds_the_copy_of_the_query_with_the_wrong_label():
    """Two images are copies of the query, and the second has another label."""
    net = nets.seeded(lambda: nn.Sequential(nets.Small(1), nn.Linear(3, 2)))
    model = fv.Model(net, size=8, channels=1, mean=0.5, std=0.25)
    rng = torch.Generator().manual_seed(1)
    x = torch.rand(24, 1, 8, 8, generator=rng) * 0.5
    y = torch.arange(24) % 2
    x[y == 1, :, 2:5, 2:5] += 0.5
    query = x[:1]
    x[10], x[11], y[11] = query[0], query[0], 1
    states, optimizer = [], torch.optim.SGD(net.parameters(), 0.2)
    for _ in range(3):
        for _ in range(15):
            optimizer.zero_grad()
            F.cross_entropy(net((x - 0.5) / 0.25), y).backward()
            optimizer.step()
        states.append({k: v.clone() for k, v in net.state_dict().items()})
    layers = ["0.first", "0.second", "0.head", "1"]
    scores = tracin(model, states, x, y, query, torch.tensor([0]), layers=layers)[0]
    assert int(scores.argmin()) == 11
    assert scores[0] == scores[10] > 0
    assert scores[11] < -3 * scores[10]  # it is still wrong, so that its gradient is large
    assert scores[y == 0].mean() > 0 > scores[y == 1].mean()


def trained(x, y, weights, decay):
    """Minimize Σ weights ℓ / N + decay |w|² / 2 to machine precision."""
    net = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 3))).double()
    optimizer = torch.optim.LBFGS(
        net.parameters(), max_iter=500, tolerance_grad=1e-12, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        losses = F.cross_entropy(net(x), y, reduction="none")
        norm = sum(p.square().sum() for p in net.parameters())
        total = (weights * losses).sum() / len(x) + decay / 2 * norm
        total.backward()
        return total

    optimizer.step(closure)
    return net


def test_influence_is_what_leaving_an_image_out_does():
    decay = 0.05
    (x, y), (q, z) = data(24), data(3, seed=1)
    net = trained(x, y, torch.ones(24), decay)
    model = fv.Model(net, size=(2, 3), channels=1, mean=0.0, std=1.0)
    found = influence(model, x, y, q, z, damping=decay)

    def losses(network):
        with torch.no_grad():
            return F.cross_entropy(network(q), z, reduction="none")

    def without(share):
        """How the losses change if a share of an image is left out, for all of it."""
        kept = [1 - share * (torch.arange(24) == i).double() for i in range(24)]
        retrained = [losses(trained(x, y, weights, decay)) for weights in kept]
        return (torch.stack(retrained, 1) - losses(net)[:, None]) / share

    torch.testing.assert_close(found, without(1e-3), rtol=0.02, atol=1e-5)
    assert torch.corrcoef(torch.stack([found.flatten(), without(1.0).flatten()]))[0, 1] > 0.995


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoints": []}, "at least one checkpoint"),
        ({"checkpoints": [{"other": torch.ones(1)}]}, "does not fit the network: .*other"),
        ({"labels": torch.tensor([0, 1])}, "need one label each"),
        ({"labels": torch.tensor([0, 1, 3])}, "labels of images must be from 0 to 2"),
        ({"rates": [1.0, 2.0]}, "2 rates for 1 checkpoints"),
        ({"layers": ["0"]}, "no layer '0' with weights"),
    ],
)
def test_tracin_refuses_in_one_line(change, message):
    model, (x, y) = linear(), data(3)
    given = {"checkpoints": [model.net.state_dict()], "images": x, "labels": y}
    with pytest.raises(FeatvizError, match=message):
        tracin(model, **(given | {"queries": x, "query_labels": y} | change))


def test_influence_says_where_it_does_not_hold():
    (x, y), model = data(6), linear()
    with pytest.raises(FeatvizError, match="did not converge in 1 iterations"):
        influence(model, x, y, x[:1], y[:1], iterations=1)
    with pytest.raises(FeatvizError, match="no minimum at these weights"):
        influence(model, x, y, x[:1], y[:1], damping=-5.0)
