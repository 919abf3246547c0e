"""Words for units whose meaning is planted, and the score by its formula."""

import math

import pytest
import torch
from torch import nn

import featviz as fv
from featviz.recipes.word_search import soft_wpmi

WORDS = ["red", "green", "blue", "grey"]
MEANING = {"red": [1.0, 0, 0], "green": [0, 1.0, 0], "blue": [0, 0, 1.0], "grey": [1.0, 1.0, 1.0]}


class Colours(nn.Module):
    """Maps of blue, red, greyness and green."""

    def forward(self, x):
        rest = x.mean(1)
        return torch.stack([x[:, 2] - rest, x[:, 0] - rest, -x.std(1), x[:, 1] - rest], 1)


@pytest.fixture
def encoder():
    """The mean colour as an embedding, in images of its own size."""
    return fv.Model(lambda x: x.mean((2, 3)), size=12, text=lambda t: torch.tensor(MEANING[t]))


@pytest.fixture
def images():
    colours = torch.rand(400, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    return list(colours.expand(-1, -1, 8, 8))


def test_planted_words_are_found(images, encoder):
    model = fv.Model(Colours(), size=8, axes={"output": 1})
    found = fv.recipes.unit_words(model, "output", images, WORDS, encoder=encoder, k=2, top=40)
    assert [names[0] for names in found.words] == ["blue", "red", "grey", "green"]
    assert found.units == [0, 1, 2, 3]
    assert found.images == 400
    assert found.scores.shape == (4, 2)
    assert (found.scores[:, 0] > found.scores[:, 1]).all()
    two = fv.recipes.unit_words(
        model, "output", images, WORDS, encoder=encoder, units=[1, 0], top=40
    )
    assert [names[0] for names in two.words] == ["red", "blue"]


def test_the_score_is_that_of_the_formula():
    draw = torch.Generator().manual_seed(1)
    probabilities = torch.randn(12, 3, generator=draw).softmax(1)
    activations = torch.randn(12, 2, generator=draw)
    given = [[0.0] * 3 for _ in range(2)]
    for unit in range(2):
        order = sorted(range(12), key=lambda i: -float(activations[i, unit]))[:4]
        for rank, image in enumerate(order):
            inside = 0.998 - rank / 4 * (0.998 - 0.97)
            for word in range(3):
                given[unit][word] += math.log(1 + inside * (float(probabilities[image, word]) - 1))
    prior = [math.log(sum(math.exp(given[u][w]) for u in range(2)) / 2) for w in range(3)]
    expected = torch.tensor([[given[u][w] - prior[w] for w in range(3)] for u in range(2)])
    torch.testing.assert_close(soft_wpmi(probabilities, activations, 4), expected)


def test_bad_input_is_one_line(images, encoder):
    model = fv.Model(Colours(), size=8, axes={"output": 1})

    def find(words=WORDS, by=encoder, **options):
        fv.recipes.unit_words(model, "output", images, words, encoder=by, **options)

    with pytest.raises(fv.FeatvizError, match="has no text encoder"):
        find(by=fv.Model(lambda x: x.mean((2, 3)), size=8))
    with pytest.raises(fv.FeatvizError, match="words must be a list of texts"):
        find(words="red")
    with pytest.raises(fv.FeatvizError, match="400 images: 400 examples"):
        find(top=400)
    with pytest.raises(fv.FeatvizError, match="no unit 4: the layer has 0 to 3"):
        find(units=[4])
    with pytest.raises(fv.FeatvizError, match=r"gives images \(2,\) numbers and texts 3"):
        find(by=fv.Model(lambda x: x.mean((2, 3))[:, :2], size=8, text=encoder.text))


def test_one_unit_has_the_words_that_it_has_among_all(images, encoder):
    model = fv.Model(Colours(), size=8, axes={"output": 1})
    every = fv.recipes.unit_words(model, "output", images, WORDS, encoder=encoder, top=40)
    one = fv.recipes.unit_words(model, "output", images, WORDS, encoder=encoder, top=40, units=[2])
    assert one.words == every.words[2:3]
    assert torch.equal(one.scores, every.scores[2:3])
    with pytest.raises(fv.FeatvizError, match="name at least one"):
        fv.recipes.unit_words(model, "output", images, WORDS, encoder=encoder, units=[])


def test_layers_without_positions(images, encoder):
    model = fv.Model(nn.Sequential(Colours(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), size=8)
    found = fv.recipes.unit_words(model, "output", images, WORDS, encoder=encoder, top=40)
    assert [names[0] for names in found.words] == ["blue", "red", "grey", "green"]
