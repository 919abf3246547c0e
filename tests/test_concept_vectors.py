"""TCAV and network dissection on networks whose concepts are planted."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv
from featviz.attribution.concept_vectors import _logistic_regression, concept_vector, tcav
from featviz.attribution.dissection import dissect
from featviz.errors import FeatvizError
from tests import nets
from tests.test_transformers import Vit


class Colours(nn.Module):
    """Maps of red, green and blue; class 0 likes red, class 1 dislikes it, class 2 likes green."""

    def __init__(self):
        super().__init__()
        self.maps, self.act = nn.Conv2d(3, 4, 1), nn.ReLU()
        with torch.no_grad():
            self.maps.weight.copy_(torch.eye(4, 3).view(4, 3, 1, 1))
            self.maps.bias.zero_()

    def forward(self, x):
        red, green, *_ = self.act(self.maps(x)).square().mean((2, 3)).T
        return torch.stack([red, -red, green], 1)


def shades(count, colour, seed):
    rng = torch.Generator().manual_seed(seed)
    images = 0.4 * torch.rand(count, 3, 8, 8, generator=rng)
    if colour is not None:
        images[:, colour] += 0.5
    return images


@pytest.fixture(scope="module")
def colours():
    return fv.Model(Colours(), size=(8, 8))


def test_the_concept_is_the_direction_of_its_units(colours):
    concept = concept_vector(colours, "act", shades(12, 0, 1), shades(12, None, 2))
    assert concept.accuracy == 1
    assert concept.vector.norm().item() == pytest.approx(1)
    assert concept.vector[0] > 0.98
    red, gray = (concept.objective(colours, shades(1, c, 5)) for c in (0, None))
    assert red > gray + 0.3
    noise = concept_vector(colours, "act", shades(60, None, 1), shades(60, None, 2))
    assert 0.25 < noise.accuracy < 0.75


def test_logistic_regression_is_at_its_minimum():
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 5, generator=rng).double() + m for n, m in ((20, 0.4), (30, 0)))
    weights, offset = _logistic_regression(a, b)
    rows = torch.cat([a, b])
    scale = (rows - rows.mean(0)).square().mean().sqrt()

    def loss(w, c):
        penalty = 0.01 / 2 * (w * scale).square().sum()
        return F.softplus(-(a @ w + c)).mean() / 2 + F.softplus(b @ w + c).mean() / 2 + penalty

    best = loss(weights, offset)
    for _ in range(50):
        step = 1e-3 * torch.randn(5, generator=rng).double()
        assert loss(weights + step, offset) > best
        assert loss(weights, offset + float(step[0])) > best


def test_tcav_tells_what_depends_on_the_concept(colours):
    images, examples, others = shades(6, 0, 3), shades(12, 0, 4), shades(20, None, 5)
    given = {"images": images, "examples": examples, "others": others}
    likes = tcav(colours, "act", "class:0", **given)
    assert likes.scores.tolist() == [1] * 10
    assert (likes.accuracies == 1).all()
    assert likes.p_value < 0.05
    dislikes = tcav(colours, "act", "class:1", **given)
    assert dislikes.scores.tolist() == [0] * 10
    assert dislikes.p_value < 0.05
    torch.testing.assert_close(dislikes.derivatives, -likes.derivatives)
    # o = mean of squares: moving all positions by t v changes it by 2 t mean(A) · v + O(t²)
    maps = colours.activations(images, ["act"])["act"].detach().double()
    concept = concept_vector(colours, "act", examples, others)
    moved = 1e-6 * concept.vector.double().view(1, -1, 1, 1)
    change = ((maps + moved)[:, 0].square() - maps[:, 0].square()).mean((1, 2)) / 1e-6
    torch.testing.assert_close(likes.derivatives[0], change, rtol=0.05, atol=0)
    again = tcav(colours, "act", "class:0", **given)
    assert torch.equal(again.random_scores, likes.random_scores)


def test_a_concept_without_meaning_is_not_significant(colours):
    given = {
        "images": shades(6, 0, 3),
        "examples": shades(12, None, 4),
        "others": shades(24, None, 5),
    }
    assert tcav(colours, "act", "class:2", **given, runs=6).p_value > 0.05


def test_concepts_of_a_transformer():
    model = fv.Model(nets.seeded(Vit), size=(16, 24))
    x = torch.rand(10, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    found = tcav(model, "blocks.2", "class:1", x[:2], x[:4].clamp_min(0.6), x[4:], runs=2)
    assert found.derivatives.shape == (2, 2)
    assert found.derivatives.any()


def test_what_cannot_be_tested_is_said(colours):
    x = shades(8, 0, 3)
    with pytest.raises(FeatvizError, match="at least 3 examples are needed, not 2"):
        concept_vector(colours, "act", x[:2], x)
    with pytest.raises(FeatvizError, match="at least 6 other images are needed, not 5"):
        tcav(colours, "act", "class:0", x, x, x[:5])
    with pytest.raises(FeatvizError, match="responds to all images alike"):
        concept_vector(colours, "act", 0 * x, 0 * x)
    with pytest.raises(FeatvizError, match="needs maps"):
        concept_vector(colours, "output", x, x)


def test_dissection_is_the_iou_of_the_definition(colours):
    rng = torch.Generator().manual_seed(7)
    x = torch.rand(5, 3, 8, 8, generator=rng)
    masks = {name: torch.rand(5, 8, 8, generator=rng) < 0.3 for name in ("dots", "spots")}
    found = dissect(colours, "act", x, masks, quantile=0.2)
    assert found.iou.shape == (4, 2)
    for unit in range(3):
        values = x[:, unit].numpy()
        threshold = np.sort(values.ravel())[round(0.8 * values.size) - 1]
        active = values > threshold
        assert found.thresholds[unit].item() == pytest.approx(threshold)
        assert active.mean() == pytest.approx(0.2, abs=0.01)
        for k, mask in enumerate(masks.values()):
            want = (active & mask.numpy()).sum() / (active | mask.numpy()).sum()
            assert found.iou[unit, k].item() == pytest.approx(want)
    assert (found.iou[3] == 0).all()  # never active


def test_dissection_names_the_detector():
    model = nets.seeded(lambda: nn.Sequential(Colours().maps, nn.AvgPool2d(4)))
    model = fv.Model(model, size=(32, 32))
    x = 0.2 * torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    square = torch.zeros(6, 32, 32)
    for i in range(6):
        square[i, 4 * i : 4 * i + 8, 8:16] = 1
    x[:, 1] += 0.7 * square
    masks = {"square": square, "left": torch.zeros_like(square)}
    masks["left"][:, :, :8] = 1
    found = dissect(model, "1", x, masks, quantile=0.0625)
    assert list(found.best(0.3)) == [1]
    assert found.best(0.3)[1][0] == "square"
    assert found.iou[1, 0] > 0.4  # of a map of 8 x 8, resized
    with pytest.raises(FeatvizError, match="masks of 'a' have shape"):
        dissect(model, "1", x, {"a": square[:2]})
    with pytest.raises(FeatvizError, match="at least one concept"):
        dissect(model, "1", x, {})
