"""Prototypes on images whose classes are marks at known places."""

import pytest
import torch
from torch import nn

import featviz as fv
from featviz.attribution.prototypes import fit_prototypes
from featviz.errors import FeatvizError
from tests import nets
from tests.test_transformers import Vit


def scenes(count, seed):
    """Gray images (B, 3, 16, 24) with a red, green or blue mark of 4 px on the grid of patches."""
    rng = torch.Generator().manual_seed(seed)
    images = (0.45 + 0.1 * torch.rand(count, 1, 16, 24, generator=rng)).repeat(1, 3, 1, 1)
    labels = torch.arange(count) % 3
    places = torch.stack([torch.randint(n, (count,), generator=rng) for n in (4, 6)], 1)
    for i in range(count):
        y, x = (4 * places[i]).tolist()
        images[i, :, y : y + 4, x : x + 4] = 0.1
        images[i, int(labels[i]), y : y + 4, x : x + 4] = 0.9
    return images, labels, places


@pytest.fixture(scope="module")
def fitted():
    net = nets.seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 5, 1)))
    model = fv.Model(net, size=(16, 24))
    images, labels, places = scenes(48, 0)
    return fit_prototypes(model, "0", images, labels, steps=100), places


def test_prototypes_are_the_marks_and_tell_classes_apart(fitted):
    found, places = fitted
    assert found.agreement == 1
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (found.images % 3 == found.labels).all()
    marked = (found.positions == places[found.images]).all(1)
    for klass in range(3):  # of two prototypes of a class, one may be its background
        assert marked[found.labels == klass].any()
    images, labels, _ = scenes(30, 1)
    assert (found(images).argmax(1) == labels).float().mean() > 0.95


def test_the_evidence_adds_up_and_lies_on_the_mark(fitted):
    found, _ = fitted
    images, labels, places = scenes(6, 2)
    for i in range(6):
        label = int(labels[i])
        evidence = found.evidence(images[i], label)
        total = sum(value for _, value in evidence)
        assert total == pytest.approx(float(found(images[i : i + 1])[0, label]), rel=1e-4)
        best = evidence[0][0]
        assert found.labels[best] == label
        heat = found.where(images[i], best)
        assert heat.shape == (16, 24)
        y, x = divmod(int(heat.argmax()), 24)
        assert [y // 4, x // 4] == places[i].tolist()


def test_a_prototype_is_a_patch_of_its_image(fitted):
    found, _ = fitted
    images, _, _ = scenes(48, 0)
    likeness = found.similarities(images)
    for k in range(6):
        y, x = found.positions[k].tolist()
        assert likeness[int(found.images[k]), k, y, x] > 9  # log(1 / 1e-4) at distance zero


def test_patch_tokens_of_a_transformer():
    model = fv.Model(nets.seeded(Vit), size=(16, 24))
    images, labels, _ = scenes(9, 3)
    found = fit_prototypes(model, "blocks.1", images, labels, per_class=1, steps=5)
    assert found.similarities(images[:2]).shape == (2, 3, 4, 6)
    again = fit_prototypes(model, "blocks.1", images, labels, per_class=1, steps=5)
    assert torch.equal(found.vectors, again.vectors)


@pytest.mark.parametrize(
    ("labels", "layer", "message"),
    [
        ([0, 0, 0], "0", "at least two classes"),
        ([0, 2, 2], "0", "numbered without gaps"),
        ([0, 1], "0", "3 images need one label each"),
        ([0, 1, 1], "head", "needs maps"),
    ],
)
def test_bad_arguments_are_one_line(labels, layer, message):
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = nets.seeded(lambda: nn.Sequential())
    net.add_module("0", nets.seeded(lambda: nn.Conv2d(3, 4, 3)))
    net.add_module("head", head)
    model = fv.Model(net, size=(16, 24))
    with pytest.raises(FeatvizError, match=message):
        fit_prototypes(model, layer, scenes(3, 0)[0], torch.tensor(labels), steps=1)
