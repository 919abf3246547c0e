"""Networks of words: one-hot texts as images, and the texts that excite a planted unit."""

import itertools

import pytest
import torch
from torch import nn

import featviz as fv
from featviz.errors import FeatvizError, ModelError
from featviz.param import Tokens
from tests import nets

LETTERS = "abcdefghijklmnopqrstuvwxyz "
PLANTED = ("lemon", "grape")


class Characters(nn.Module):
    """Two units that are 5 where a planted word is, and less for every other text."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(27, 12)
        self.conv = nn.Conv1d(12, 2, 5, bias=False)
        self.embed.weight.data = nn.functional.normalize(self.embed.weight.data)
        for unit, word in enumerate(PLANTED):
            letters = [LETTERS.index(letter) for letter in word]
            self.conv.weight.data[unit] = self.embed.weight.data[letters].T

    def forward(self, tokens):
        return self.conv(self.embed(tokens).transpose(1, 2)).amax(2)


class Recurrent(nn.Module):
    """A GRU of words behind a mask of padding, called with tokens and their lengths."""

    def __init__(self, words=4):
        super().__init__()
        self.words = nn.Embedding(words, 6, padding_idx=0)
        self.gru = nn.GRU(6, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens, scale=1.0):
        seen = (tokens != 0)[..., None]
        return self.head(scale * (self.gru(self.words(tokens))[0] * seen).sum(1))


def characters(length=8, **options):
    return fv.TextModel(nets.seeded(Characters), "embed", LETTERS, length, **options)


def recurrent(length=3):
    return fv.TextModel(
        nets.seeded(Recurrent),
        "words",
        ["<pad>", "old", "new", "blue"],
        length,
        call=lambda net, tokens: net(tokens, scale=2.0),
    )


def test_a_one_hot_text_is_what_the_network_makes_of_its_tokens():
    model = characters()
    texts = ["a lemon ", "grapes  "]
    tokens = torch.tensor([[LETTERS.index(letter) for letter in text] for text in texts])
    images = model.encode(*texts)
    assert images.shape == (2, 27, 8)
    torch.testing.assert_close(model(images), model.net(tokens))
    assert model.decode(images) == texts
    found = model.activations(images, ["embed", "conv"])
    torch.testing.assert_close(found["embed"], model.net.embed(tokens))
    assert (model.layer("embed").axis, model.layer("conv").axis) == (2, 1)
    assert not model.net.embed._forward_hooks


def test_words_keywords_and_masks():
    model = recurrent()
    images = model.encode("old blue <pad>", ["new", "<pad>", "<pad>"])
    tokens = torch.tensor([[1, 3, 0], [2, 0, 0]])
    torch.testing.assert_close(model(images), model.net(tokens, scale=2.0))
    assert model.decode(images) == ["old blue <pad>", "new <pad> <pad>"]
    assert fv.recipes.soft_text(model, "class:1", steps=3, k=2).scores.isfinite().all()


def test_soft_words_are_the_mean_of_their_vectors():
    model = characters()
    soft = torch.rand(2, 27, 8, generator=torch.Generator().manual_seed(1)).softmax(1)
    vectors = torch.einsum("bwl,wd->bld", soft, model.net.embed.weight.detach())
    expected = model.net.conv(vectors.transpose(1, 2)).amax(2)
    torch.testing.assert_close(model(soft), expected.detach())
    leaf = soft.requires_grad_()
    (slope,) = torch.autograd.grad(fv.class_logit(0)(model, leaf).sum(), leaf)
    assert (slope != 0).any(1).sum() == 2 * 5  # the window of the maximum, of each text


@pytest.mark.parametrize("unit", [0, 1])
def test_the_planted_word_is_found_by_search(unit):
    found = fv.recipes.search_text(characters(), fv.class_logit(unit), seed=[0, 1], steps=30)
    for text, score in zip(found.texts, found.scores, strict=True):
        assert PLANTED[unit] in text
        assert score == pytest.approx(5, abs=1e-4)
    assert found.history.shape == (30, 2)
    assert found.history.max() == pytest.approx(5, abs=1e-4)
    assert found.soft_scores is None
    assert [near[0][0] for near in found.nearest[0]] == list(found.texts[0])


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("unit", [0, 1])
def test_the_planted_word_is_found_by_soft_words(unit, hard):
    model = characters()
    found = fv.recipes.soft_text(model, fv.class_logit(unit), seed=[0, 1], steps=120, hard=hard)
    for text, score in zip(found.texts, found.scores, strict=True):
        assert PLANTED[unit] in text
        assert score == pytest.approx(5, abs=1e-3)
        assert fv.class_logit(unit)(model, model.encode(text)) == pytest.approx(5, abs=1e-3)
    at = found.texts[0].index(PLANTED[unit])
    for letter, near in zip(PLANTED[unit], found.nearest[0][at:], strict=False):
        assert near[0][0] == letter
        assert near[0][1] > near[1][1] > near[2][1] >= 0
    if hard:
        torch.testing.assert_close(found.soft_scores, found.scores)


def test_the_search_finds_the_best_of_all_texts():
    model = recurrent()
    every = list(itertools.product(model.words, repeat=3))
    scores = fv.class_logit(2)(model, model.encode(*every)).detach()
    found = fv.recipes.search_text(model, fv.class_logit(2), seed=[0, 1, 2], steps=40, candidates=8)
    assert found.scores.max() == pytest.approx(float(scores.max()), abs=1e-5)
    assert found.texts[int(found.scores.argmax())] == " ".join(every[int(scores.argmax())])


@pytest.mark.parametrize("recipe", [fv.recipes.search_text, fv.recipes.soft_text])
def test_what_is_fixed_stays_and_what_is_avoided_is_not_used(recipe):
    model = characters()
    found = recipe(model, fv.class_logit(0), start="xx    yy", free=[2, 3, 4, 5], steps=60)
    assert found.texts[0][:2] == "xx"
    assert found.texts[0][6:] == "yy"
    found = recipe(model, fv.class_logit(0), avoid=["e", "q"], steps=60)
    assert "l" in found.texts[0]
    assert not set("eq") & set(found.texts[0])
    assert found.scores[0] > 4


def test_a_search_is_the_same_each_time_and_leaves_the_network_alone():
    model = characters()
    before = {n: t.clone() for n, t in model.net.state_dict().items()}
    runs = [fv.recipes.search_text(model, "class:0", seed=3, steps=4) for _ in range(2)]
    assert torch.equal(runs[0].history, runs[1].history)
    assert all(torch.equal(t, before[n]) for n, t in model.net.state_dict().items())
    assert all(p.requires_grad for p in model.net.parameters())
    assert not model.net.embed._forward_hooks


def test_letters_of_a_word_have_the_attribution():
    model = characters()
    found = fv.attribute(model, model.encode("a lemon "), "class:0", method="input_x_gradient")
    by_letter = found.attributions.reshape(1, -1, 8).sum(1)[0]
    torch.testing.assert_close(by_letter[2:7], torch.ones(5), rtol=1e-3, atol=1e-3)
    assert by_letter[[0, 1, 7]].abs().max() < 1e-3


def test_hard_words_are_one_hot_with_the_gradient_of_soft_ones():
    hard, soft = (Tokens(size=(4,), channels=5, hard=h, sd=1.0) for h in (True, False))
    state = hard.init([0, 1])
    images, mixtures = hard.image(state), soft.image(state)
    assert torch.equal(images, images.round())
    assert torch.equal(images.sum(1), torch.ones(2, 4))
    assert torch.equal(images.argmax(1), mixtures.argmax(1))
    waves = torch.arange(40).sin().view(2, 5, 4)
    slopes = [
        torch.autograd.grad((i * waves).sum(), state["logits"])[0] for i in (images, mixtures)
    ]
    torch.testing.assert_close(*slopes)


def test_tokens_start_at_probabilities():
    start = torch.rand(1, 5, 4).softmax(1)
    start[:, 0] = 0
    start = start / start.sum(1, keepdim=True)
    param = Tokens(temperature=0.5).from_image(start)
    torch.testing.assert_close(param.image(param.init([0, 1])), start.expand(2, -1, -1))
    with pytest.raises(FeatvizError, match="must sum to 1"):
        Tokens().from_image(torch.rand(1, 5, 4))
    with pytest.raises(FeatvizError, match="temperature must be positive"):
        Tokens(temperature=0)


def test_wrong_input_is_answered():
    net = nets.seeded(Characters)
    with pytest.raises(ModelError, match=r"no nn.Embedding 'conv' in the network: it has embed"):
        fv.TextModel(net, "conv", LETTERS, 8)
    with pytest.raises(ModelError, match="26 words, and embedding 'embed' has 27 rows"):
        fv.TextModel(net, "embed", LETTERS[:-1], 8)
    with pytest.raises(ModelError, match="words must be different"):
        fv.TextModel(net, "embed", "a" * 27, 8)
    model = characters()
    with pytest.raises(FeatvizError, match="knows no word 'é'"):
        model.encode("caféxxxx")
    with pytest.raises(FeatvizError, match="a text has 8 words, and 'cat' has 3"):
        model.encode("cat")
    search = fv.recipes.search_text
    with pytest.raises(FeatvizError, match="texts need a model of words"):
        search(nets.tiny(), "class:0")
    with pytest.raises(FeatvizError, match="a text has one objective"):
        search(model, ["class:0", "class:1"])
    with pytest.raises(FeatvizError, match="give start, too"):
        search(model, "class:0", free=[1])
    with pytest.raises(FeatvizError, match="free must be positions from 0 to 7"):
        search(model, "class:0", start="a lemon ", free=[8])
    with pytest.raises(FeatvizError, match="avoid must be a list of the network's words"):
        search(model, "class:0", avoid=["é"])
    with pytest.raises(FeatvizError, match="compares samples"):
        search(model, "class:0 + diversity:conv")
    shifted = fv.TextModel(net, "embed", LETTERS, 8, call=lambda net, tokens: net(tokens[:, 1:]))
    with pytest.raises(ModelError, match="'embed' was given tokens of shape"):
        shifted(model.encode("a lemon "))
