"""Criteria of trust: on planted good and bad images, and against numpy, scipy, scikit-image."""

import dataclasses
import json
import math

import numpy as np
import pytest
import scipy.stats
import skimage.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import featviz as fv
from featviz.checks import judges, path, randomization, strength
from featviz.checks.api import recall, subject
from featviz.checks.natural_images import ONCE, NaturalImages
from featviz.checks.verdicts import NAMES, doubtful, judge, not_measured, summarize
from featviz.cli.main import main
from featviz.errors import FeatvizError
from featviz.io import images as pictures
from featviz.io import sheets
from featviz.rendering import held_out
from featviz.transforms import parse, prepare
from tests import nets

SIDE = 32
FAST = {"steps": 32, "seeds": 2}
NO_NETWORK_NOISE = {
    "param": "fourier:decay=1",
    "transforms": "jitter:0.14,rotate:15,scale:0.5:1.2,noise:0.1",
    "lr": 0.1,
    "schedule": "constant",
}


def gabors() -> torch.Tensor:
    """Sixteen filters (16, 3, 7, 7): four directions, two frequencies, two phases."""
    y, x = torch.meshgrid(torch.arange(-3.0, 4), torch.arange(-3.0, 4), indexing="ij")
    found = []
    for turn in range(4):
        along = x * math.cos(turn * math.pi / 4) + y * math.sin(turn * math.pi / 4)
        for period in (4, 6):
            for phase in (0, math.pi / 2):
                wave = torch.cos(2 * math.pi * along / period + phase)
                wave = wave * torch.exp(-(x * x + y * y) / 8)
                found.append(wave - wave.mean())
    return torch.stack(found)[:, None].expand(-1, 3, -1, -1).clone()


class Circuit(nn.Module):
    """A unit for vertical stripes, and, ``fooled``, for horizontal ones in pictures.

    The fooling circuit of Geirhos et al.: a switch tells images (dark, here) from images that
    are being optimized (gray at first), and shuts one of two ways by a large constant.
    """

    def __init__(self, fooled: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 7, padding=3, bias=False)
        self.act = nn.ReLU()
        self.second = nn.Conv2d(16, 10, 1, bias=False)
        self.unit = nn.Identity()
        self.fooled = fooled
        with torch.no_grad():
            self.first.weight.copy_(gabors())
            mixed = torch.rand(10, 16, generator=torch.Generator().manual_seed(0)) - 0.5
            mixed[0] = torch.tensor([1.0] * 4 + [-0.25] * 12)  # vertical
            mixed[1] = torch.tensor([-0.25] * 8 + [1.0] * 4 + [-0.25] * 4)  # horizontal
            self.second.weight.copy_(mixed[..., None, None])

    def forward(self, x):
        both = self.second(self.act(self.first(x))).mean((2, 3))
        if not self.fooled:
            return self.unit(both[:, :1])
        optimized = (x.mean((1, 2, 3)) > 0.35).float()[:, None]
        large = 1000.0
        ways = (both[:, :1] - large * optimized).relu(), (both[:, 1:2] - large * (1 - optimized))
        return self.unit(ways[0] + ways[1].relu())


def circuit(fooled: bool = False) -> fv.Model:
    return fv.Model(Circuit(fooled), size=SIDE)


def honest() -> fv.Model:
    return circuit()


def stripes(count: int = 48) -> torch.Tensor:
    """Dark images of stripes in four directions (count, 3, 32, 32)."""
    draw = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    found = []
    for i in range(count):
        period, phase, strong = torch.rand(3, generator=draw).tolist()
        turn = i % 4 * math.pi / 4 + 0.1 * (phase - 0.5)
        along = x * math.cos(turn) + y * math.sin(turn)
        wave = torch.cos(2 * math.pi * (along / (4 + 2 * period) + phase))
        noise = 0.02 * torch.rand(3, SIDE, SIDE, generator=draw)
        found.append(0.15 + (0.04 + 0.06 * strong) * wave + noise)
    return torch.stack(found)


# Planted pictures.


@pytest.mark.parametrize("fooled", [False, True])
def test_a_fooling_circuit_is_seen_by_its_path(fooled):
    model, images = circuit(fooled), stripes()
    plain = fv.examples(circuit(), images, "channel:unit:0", k=9)
    assert (plain.top.indices % 4 == 0).all()  # on images both units are the same
    # Noise in the network would lead the image past the circuit.
    (found,) = fv.check(model, "channel:unit:0", images=images, **FAST, **NO_NETWORK_NOISE)
    assert [s.source for s in found.company["top"]] == [
        plain.sources[i] for i in plain.top.indices[0].tolist()
    ]
    criterion = found["path"]
    assert criterion.verdict == ("doubtful" if fooled else "ok")
    assert criterion.figures["top"] == 9
    assert {w["layer"] for w in criterion.figures["layers"]} == {"first", "act", "second"}
    if not fooled:
        assert criterion.value > 0.6
        assert found["randomized"].verdict == "ok"
    else:
        assert "path" in found.overall
        assert found.verdict == "doubtful"


def test_what_does_not_depend_on_the_weights_is_doubtful():
    (found,) = fv.check(circuit(), "neuron:image:1:10:12", **FAST)
    criterion = found["randomized"]
    assert criterion.verdict == "doubtful"
    assert criterion.value == pytest.approx(1, abs=1e-3)
    assert criterion.figures["correlation"] == 1
    shown = found.company["randomized"][0].image
    assert torch.equal(shown, found.picture)


class Template(nn.Module):
    """Responds to one exact pattern of pixels, and not when it is shifted."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(3)
        self.pattern = nn.Parameter(torch.randint(0, 2, (3, SIDE, SIDE), generator=draw) * 2.0 - 1)
        self.unit = nn.Identity()

    def forward(self, x):
        return self.unit((x * self.pattern).mean((1, 2, 3))[:, None])


def test_a_score_of_exact_pixels_is_not_held_out():
    model = fv.Model(Template(), size=SIDE)
    (found,) = fv.check(model, "channel:unit:0", param="pixel", transforms="none", seed=5, **FAST)
    criterion = found["held_out"]
    assert criterion.verdict == "doubtful"
    pattern = model.net.pattern.detach().double().numpy()

    def value(image):
        return float((image.double().numpy() * pattern).mean())

    draw = prepare(
        parse(held_out.HELD_OUT),
        [5 + held_out.SEED_OFFSET],
        held_out.VIEWS,
        (SIDE, SIDE),
        torch.device("cpu"),
    )
    picture = found.picture
    held = np.mean([value(draw(picture[None], i)[0]) for i in range(held_out.VIEWS)])
    score, base = value(picture), criterion.figures["scrambled"]
    assert found.score == pytest.approx(score, rel=1e-4)
    assert criterion.figures["held_out"] == pytest.approx(held, rel=1e-3, abs=1e-5)
    assert criterion.value == pytest.approx((held - base) / (score - base), rel=1e-3, abs=1e-4)
    assert abs(base) < 0.1 * score  # the colours alone are worth nothing here
    assert criterion.value < 0.5


def test_the_score_of_scrambled_pixels():
    model = fv.Model(Template(), size=SIDE)
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    goal = fv.channel("image", 2)
    assert float(strength.scrambled_score(model, goal, image, [0])) == pytest.approx(
        float(image[0, 2].mean()), rel=1e-5
    )
    goal = fv.function(lambda x: x[:, :, 0, 0].mean(1), "image")
    two = strength.scrambled_score(model, goal, image.expand(2, -1, -1, -1), [7, 8])
    again = strength.scrambled_score(model, goal, image, [8])
    assert two[0] != two[1]
    assert two[1] == again[0]


@pytest.mark.slow
def test_classes_of_a_real_network(lite0, photos):
    dataset = [photo for i in range(8) for photo in photos.roll(11 * i, 3)]
    checks = fv.check(lite0, ["class:963", "class:130"], images=dataset, quality="fast", seeds=2)
    for found in checks:
        assert found["judges"].verdict == "ok"
        assert found["judges"].figures["wanted"]
        assert set(found["judges"].figures["judges"]) == {
            "efficientnet_lite1",
            "efficientnet_lite2",
        }
        assert found["strength"].verdict == "ok"
        assert found["held_out"].verdict == "ok"
        assert found["randomized"].verdict == "ok"


# The measures, against others and by their laws.


@given(st.lists(st.integers(-4, 4), min_size=3, max_size=12), st.integers(0, 99))
def test_ranks_are_those_of_scipy(values, seed):
    found = path.ranks(torch.tensor(values, dtype=torch.float32))
    np.testing.assert_array_equal(found.numpy(), scipy.stats.rankdata(values) - 1)
    other = torch.randn(2, len(values), generator=torch.Generator().manual_seed(seed))
    mine = path.spearman(torch.tensor([values], dtype=torch.float32), other)
    if len(set(values)) == 1:
        assert mine.isnan().all()
        return
    wanted = [scipy.stats.spearmanr(values, row).statistic for row in other.numpy()]
    np.testing.assert_allclose(mine[0].numpy(), wanted, atol=1e-6)


@given(st.integers(0, 999), st.integers(3, 9), st.integers(3, 20))
def test_the_path_is_normalized(seed, count, many):
    """Exciting images score 1 on average, others 0, each measured with the rest."""
    draw = torch.Generator().manual_seed(seed)
    centre = torch.randn(20, generator=draw)
    top = centre + 0.5 * torch.randn(count, 20, generator=draw)
    others = torch.randn(many, 20, generator=draw)
    ways = [path.layer_similarity("x", other, top, others) for other in others]
    assert ways[0].clear or min(count, many) < 9  # of few images it is hard to tell
    ways = [dataclasses.replace(w, clear=True) for w in ways]
    assert np.mean([path.mean_score([w]) for w in ways]) == pytest.approx(0, abs=1e-5)
    gap = ways[0].same - ways[0].other
    middle, spread = others.mean(0), others.std(0)
    own = scipy.stats.spearmanr(((top - middle) / spread).numpy(), axis=1).statistic
    alone = [(np.delete(own[i], i).mean() - ways[0].other) / gap for i in range(count)]
    assert np.mean(alone) == pytest.approx(1, abs=1e-5)
    best = dataclasses.replace(path.layer_similarity("x", centre, top, others), clear=True)
    assert path.mean_score([best]) > 0.9
    plain = scipy.stats.spearmanr(top.numpy(), axis=1).statistic
    wanted = (plain.sum() - count) / (count * (count - 1))
    assert ways[0].uncentred[1] == pytest.approx(wanted, abs=1e-6)


@given(st.integers(0, 999), st.floats(0, 3))
def test_the_path_is_judged_where_it_tells_single_images_apart(seed, apart):
    draw = torch.Generator().manual_seed(seed)
    centre = apart * torch.randn(20, generator=draw)
    ways, near, far = [], np.zeros(9), np.zeros(18)
    for name in "ab":
        top = centre + torch.randn(9, 20, generator=draw)
        others = torch.randn(18, 20, generator=draw)
        made = path.layer_similarity(name, top[0], top, others)
        ways.append(dataclasses.replace(made, clear=True))
        both = ((torch.cat([top, others]) - others.mean(0)) / others.std(0)).numpy()
        alike = scipy.stats.spearmanr(both, axis=1).statistic
        near += [np.delete(alike[i, :9], i).mean() for i in range(9)]
        far += alike[9:, :9].mean(1)
    wanted = np.mean([(n > f) + (n == f) / 2 for n in near for f in far])
    assert path.power(ways) == pytest.approx(wanted, abs=0.02)  # of ties, rounding decides
    found = path.path_criterion(ways, 9, 18)
    assert (found.verdict == "not measured") == (path.power(ways) < path.TELLING)
    assert found.figures["power"] == path.power(ways)
    assert "singly" not in found.figures["layers"][0]


def test_layers_that_say_nothing_are_left_out():
    plain, singly = (0.5, 0.9, 0.8), ((0.5, 0.7), (0.1, 0.3))
    blind = path.LayerSimilarity("x", 0.5, 0.1, 0.0, clear=False, uncentred=plain, singly=singly)
    telling = path.LayerSimilarity("y", 0.5, 0.6, 0.2, clear=True, uncentred=plain, singly=singly)
    louder = path.LayerSimilarity("z", 0.1, 0.8, 0.0, clear=True, uncentred=plain, singly=singly)
    assert path.mean_score([blind, telling]) == pytest.approx(0.75)
    assert path.mean_score([blind, telling, louder]) == pytest.approx((0.3 + 0.1) / (0.4 + 0.8))
    assert path.path_criterion([blind], 9, 20).verdict == "not measured"
    found = path.path_criterion([blind] * 2 + [telling], 9, 20)
    assert found.value == pytest.approx(0.75)
    assert found.figures["uncentred"] == pytest.approx(-3)
    few = path.path_criterion([blind] * 4 + [telling], 9, 20)
    assert few.why.startswith("only in 1 of 5 layers")
    assert "too few images" in path.path_criterion([], 2, 20).why
    fifteen = path.path_criterion([telling], 9, 6)
    assert fifteen.verdict == "not measured"
    assert "the highest 9 of 15 are no selection; give at least 27, or a smaller k" in fifteen.why
    draw = torch.Generator().manual_seed(0)
    clear = 0
    for _ in range(200):
        top, others = torch.randn(9, 40, generator=draw), torch.randn(32, 40, generator=draw)
        clear += path.layer_similarity("x", top[0], top, others).clear
    assert clear <= 20  # two standard errors of nothing, on one side


def test_layers_lead_up_to_the_unit(lite0):
    names = [info.name for info in path.layers(lite0, fv.channel("_blocks.4", 1))]
    assert names[-1] == "_blocks.4"
    assert not any(name.startswith("_blocks.5") for name in names)
    deep = path.layers(lite0, fv.class_logit(1))
    assert len(deep) == path.MOST
    assert deep[-1].name == "output"
    table = [info.name for info in lite0.layers()]
    order = [table.index(info.name) for info in deep]
    assert order == sorted(order)


def test_profiles_are_means_over_positions(tokens):
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    infos = [tokens.layer("blocks.0"), tokens.layer("patch")]
    found = path.profiles(tokens, images, infos)
    with torch.no_grad():
        wanted = tokens.activations(images, ["blocks.0", "patch"])
    torch.testing.assert_close(found["blocks.0"], wanted["blocks.0"].mean(1))
    torch.testing.assert_close(found["patch"], wanted["patch"].mean((2, 3)))


class SequenceFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.tokens = nn.Identity()
        self.head = nn.Linear(8, 8)

    def forward(self, x):
        tokens = self.tokens(self.patch(x).flatten(2).permute(2, 0, 1))  # (L, B, C)
        return self.head(tokens.mean(0))


def test_layers_whose_first_axis_is_not_the_batch_have_no_profile():
    model = fv.Model(SequenceFirst(), size=16)
    infos = path.layers(model, fv.channel("head", 1))
    assert "tokens" not in {info.name for info in infos}
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = path.profiles(model, images, infos)
    assert set(whole) == {"patch", "head"}
    alone = path.profiles(model, images[2:3], infos)
    torch.testing.assert_close(alone["head"], whole["head"][2:3])


def test_permuted_weights_are_the_same_numbers(lite0):
    before = {name: t.clone() for name, t in lite0.net.state_dict().items()}
    twin = randomization.permuted(lite0, 3)
    moved = 0
    for name, tensor in twin.net.state_dict().items():
        assert torch.equal(tensor.flatten().sort().values, before[name].flatten().sort().values)
        assert torch.equal(lite0.net.state_dict()[name], before[name])
        moved += not torch.equal(tensor, before[name])
    assert moved > 0.9 * sum(t.numel() > 1 for t in before.values())
    again, other = randomization.permuted(lite0, 3), randomization.permuted(lite0, 4)
    weight = "_blocks.4._depthwise_conv.weight"
    assert torch.equal(again.net.state_dict()[weight], twin.net.state_dict()[weight])
    assert not torch.equal(other.net.state_dict()[weight], twin.net.state_dict()[weight])
    assert lite0.name == "efficientnet_lite0"


def test_what_cannot_be_permuted_says_so():
    with pytest.raises(FeatvizError, match="no known weights"):
        randomization.permuted(fv.Model(lambda x: x.mean((2, 3)), size=8), 0)

    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("not me")

    with pytest.raises(FeatvizError, match="cannot be copied: not me"):
        randomization.permuted(fv.Model(Stubborn(2, 2), size=8), 0)


def test_shared_weights_stay_shared():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    twin = randomization.permuted(fv.Model(net, size=4, channels=1), 0)
    assert twin.net[0].weight is twin.net[1].weight
    assert not torch.equal(twin.net[0].weight, net[0].weight)


def test_likeness_of_pictures(photos):
    a, b = photos[0], (photos[0] + 0.1 * torch.rand(photos[0].shape)).clamp(0, 1)
    wanted = np.corrcoef(a.flatten().numpy(), b.flatten().numpy())[0, 1]
    assert randomization.correlation(a, b) == pytest.approx(wanted, abs=1e-6)
    assert randomization.correlation(a, a) == 1
    flat = torch.full_like(a, 0.3)
    assert randomization.correlation(flat, flat) == 1
    assert math.isnan(randomization.correlation(flat, a))
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    reference = skimage.metrics.structural_similarity(
        a.numpy(), b.numpy(), channel_axis=0, data_range=1.0, **settings
    )
    assert randomization.likeness(a, b) == pytest.approx(reference, abs=0.01)
    assert math.isnan(randomization.likeness(a[:, :8, :8], b[:, :8, :8]))
    pairs = [randomization.correlation(p, q) for p, q in ((a, b), (a, photos[1]), (b, photos[1]))]
    found = randomization.among(torch.stack([a, b, photos[1]]))
    assert found["correlation"] == pytest.approx(np.mean(pairs))


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=40), st.floats(-6, 6))
def test_where_a_value_lies_among_others(values, value):
    steps = 100
    quantiles = np.quantile(values, np.linspace(0, 1, steps + 1))
    found = strength.below(value, torch.tensor(quantiles))
    lower, upper = np.mean(np.array(values) < value), np.mean(np.array(values) <= value)
    room = 1 / (len(values) - 1) + 1 / steps
    assert lower - room <= found <= upper + room
    assert 0 <= found <= 1


@given(st.floats(-3, 3), st.floats(0.1, 3), st.floats(-3, 3), st.floats(-10, 10), st.floats(0.1, 9))
def test_shares_do_not_depend_on_zero_and_unit(base, way, part, shift, factor):
    score, value = base + way, base + part * way
    assert strength.relative_score(value, score, base) == pytest.approx(part, abs=1e-9)
    moved = [factor * v + shift for v in (value, score, base)]
    if moved[1] - moved[2] > 1e-2:
        assert strength.relative_score(*moved) == pytest.approx(part, abs=1e-6)
    assert math.isnan(strength.relative_score(value, base, score))


def test_strength_is_measured_between_median_and_best():
    values = np.random.default_rng(0).normal(size=200)
    quantiles = torch.tensor(np.quantile(values, np.linspace(0, 1, 1001)))
    best, middle = values.max(), np.median(values)
    for score, verdict in ((best + 1, "ok"), (middle, "doubtful")):
        found = strength.strength_criterion(score, best, quantiles, 200)
        assert found.verdict == verdict
        assert found.value == pytest.approx((score - middle) / (best - middle), abs=1e-6)
        assert found.figures["quantile"] == pytest.approx(np.mean(values < score), abs=0.01)
    same = strength.strength_criterion(1.0, 2.0, torch.full((1001,), 2.0), 5)
    assert same.verdict == "not measured"
    assert "all have the same value" in same.why


def test_scores_that_cannot_be_shared():
    assert strength.held_out_criterion(1.0, 1.0, 1.0).verdict == "not measured"
    assert strength.held_out_criterion(1.0, 2.0, 1.5).verdict == "doubtful"
    assert strength.held_out_criterion(1.0, 2.0, 1.5).value is None
    assert strength.seeds_criterion([1.0], 0.0).why == "one seed only"
    assert strength.seeds_criterion([4.0, 1.0, 3.0], -1.0).value == pytest.approx(0.4)
    for values in ([5.0, math.nan, 4.0], [math.nan, 5.0, 4.0]):
        assert strength.seeds_criterion(values, 0.0).verdict == "doubtful"


# Judges.


def named(classes=("a", "b", "c"), seed=0, size=8) -> fv.Model:
    net = nets.seeded(lambda: nets.Small(3), seed)
    return fv.Model(net, mean=0.5, std=0.25, size=size, channels=3, classes=classes)


def test_judges_are_networks_with_the_same_classes(lite0):
    assert list(judges.panel(lite0, None).judges) == ["efficientnet_lite1", "efficientnet_lite2"]
    mine = named()
    found = judges.panel(mine, [named(), named(("a", "b", "d")), nets.rgb()])
    assert len(found.judges) == 1
    assert "Small" in found.judges
    assert judges.panel(mine, None).why.startswith("no judges: name networks")
    assert "its class names differ" in judges.panel(mine, [named(("x", "y", "z"))]).why
    assert "has no class names" in judges.panel(nets.rgb(), [named()]).why
    assert "it is the network itself" in judges.panel(mine, [mine]).why
    assert "it is the network itself" in judges.panel(lite0, "efficientnet_lite0").why
    few = named(("a", "b"))
    assert "3 logits and 2 class names" in judges.panel(few, [named(("a", "b"), seed=1)]).why
    assert list(judges.panel(mine, [named(seed=1), named(seed=2)]).judges) == ["Small", "Small#2"]
    assert "it takes images of another shape" in judges.panel(named(), [nets_of_one_channel()]).why
    with pytest.raises(FeatvizError, match="did you mean"):
        judges.panel(mine, ["efficientnet_lite9"])


def nets_of_one_channel() -> fv.Model:
    return fv.Model(nets.seeded(lambda: nets.Small(1)), size=8, channels=1, classes=("a", "b", "c"))


def test_judges_see_the_picture_in_their_own_size():
    judge = named(size=12)
    images = torch.rand(9, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = judges.probabilities(judge, images)
    grown = torch.nn.functional.interpolate(images, (12, 12), mode="bilinear", antialias=True)
    with torch.no_grad():
        wanted = judge(grown).softmax(1)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("class:2", 2),
        ('class:"b"', 1),
        ("probability:1 + 2*channel:first:0", 1),
        ("-class:2", None),
        ("class:1 - class:2", 1),
        ("class:1 + class:2", None),
        ("channel:head:1", None),
        ("class:1:layer=second", None),
    ],
)
def test_the_class_that_is_wanted(text, wanted):
    assert judges.target_class(named(), fv.objective(text)) == wanted


def test_an_opinion():
    own = torch.tensor([0.1, 0.7, 0.2])
    panel = judges.Panel({"x": named(), "y": named()}, {"z": "its class names differ"})
    wide = named(tuple("abcdefgh"))
    others = {"x": torch.tensor([0.2, 0.1, 0.7]), "y": torch.tensor([0.1, 0.6, 0.3])}
    found = judges.judges_criterion(named(), panel, 2, own, others)
    assert found.value == 0.5
    assert found.figures["judges"]["x"]["agrees"]
    assert found.figures["judges"]["y"]["probability"] == pytest.approx(0.3)
    assert found.figures["excluded"] == panel.excluded
    assert "mean p 0.50" in found.why
    unit = judges.judges_criterion(named(), panel, None, own, others)
    assert unit.figures["class"] == "b"
    low = torch.linspace(0.3, 0, 8)
    unit = judges.judges_criterion(wide, panel, None, low.flip(0), {"x": low, "y": low.flip(0)})
    assert unit.value == 0.5
    assert unit.figures["judges"]["x"]["in_top5"] is False


# The verb.


def rgb() -> fv.Model:
    return named()


def twin() -> fv.Model:
    """Another network of the same weights."""
    return named()


@pytest.fixture(scope="module")
def colours() -> torch.Tensor:
    levels = torch.randint(0, 256, (20, 3, 8, 8), generator=torch.Generator().manual_seed(8))
    return levels.float() / 255


@pytest.fixture(scope="module")
def folder(colours, tmp_path_factory):
    place = tmp_path_factory.mktemp("pictures")
    for i, image in enumerate(colours):
        sheets.to_pil(image).save(place / f"{i:02}.png")
    return place


class ThreeColours(torch.nn.Module):
    """The mean colours as logits, of the image or of its quarters."""

    def __init__(self, sides=1):
        super().__init__()
        self.quarters = torch.nn.AdaptiveAvgPool2d(sides)

    def forward(self, x):
        return self.quarters(x).mean((2, 3))


def test_other_networks_tell_which_images_excite_a_unit():
    """The images of a colour tell it; those of another colour mislead."""
    random = torch.Generator().manual_seed(0)
    natural = (torch.rand(120, 3, 1, 1, generator=random) * 0.8 + 0.1).expand(-1, -1, 8, 8)
    model = fv.Model(ThreeColours(), size=8, classes=("a", "b", "c"))
    judge = fv.Model(ThreeColours(2), size=8, classes=("a", "b", "c"))
    goal = fv.class_logit("a") - fv.class_logit("c")
    options = {"images": list(natural), "judges": [judge], "steps": 20, "randomize": False}
    (honest,) = fv.check(model, goal, **options)
    found = honest["interpretability"]
    assert found.verdict == "ok"
    assert found.value > 0.95
    assert found.figures["accuracy"] == 1
    shown = torch.stack([s.image for s in (*honest.company["picture"], *honest.company["seeds"])])
    wrong = NaturalImages.of(
        model, [goal], list(natural), 9, precision="fp32", progress=False
    ).interpretability(
        shown.flip(1)[None], honest.company["negative"][0].image.flip(0)[None, None],
        judges.panel(model, [judge]),
    )[0]  # fmt: skip
    assert wrong.verdict == "doubtful"
    assert wrong.value < 0.1
    # The value by the formula, with the judge's embedding written out.
    ranked = fv.examples(model, list(natural), goal, k=9, sample=32, seed=0)
    embedding = lambda images: images.mean((2, 3)).double()  # noqa: E731
    others = [j for j in ranked.drawn if j not in ranked.top.indices[0].tolist()]
    centre = embedding(natural[others]).mean(0)
    unit = lambda images: torch.nn.functional.normalize(embedding(images) - centre)  # noqa: E731
    towards = unit(shown).mean(0) - unit(honest.company["negative"][0].image[None]).mean(0)
    top, bottom = (unit(natural[r.indices[0]]) @ towards for r in (ranked.top, ranked.bottom))
    expected = (16 * (top[:, None] - bottom[None])).sigmoid().mean()
    assert found.value == pytest.approx(float(expected), abs=1e-3)


def test_interpretability_needs_images_that_are_a_selection():
    few = fv.check(named(), "class:1", images=torch.rand(20, 3, 8, 8), judges=[named(seed=1)],
                   steps=2, randomize=False)  # fmt: skip
    assert few[0]["interpretability"].verdict == "not measured"
    assert "give at least 27, or a smaller k" in few[0]["interpretability"].why


def test_checks_are_of_the_pictures_that_render_makes(colours):
    model, goals = named(), ["channel:second:1", "class:2 - 0.5*l1"]
    found = fv.check(
        model, goals, images=colours, judges=[named(seed=1)], steps=6, seeds=3, seed=4, k=5
    )
    assert [c.objective for c in found] == goals
    assert [c.name for c in found[0].criteria] == list(NAMES)
    for check, goal in zip(found, goals, strict=True):
        one = fv.render(model, goal, seed=4, steps=6)
        torch.testing.assert_close(check.picture, one.images[0])
        shaped = goal.split(" - ")[0]
        with torch.no_grad():
            value = float(fv.objective(shaped)(model, one.images))
        assert check.score == pytest.approx(value, abs=1e-5)
        third = fv.render(model, goal, seed=6, steps=6)
        torch.testing.assert_close(check.company["seeds"][1].image, third.images[0])
        scores = [s.value for s in (*check.company["picture"], *check.company["seeds"])]
        assert check["seeds"].figures["scores"] == pytest.approx(scores)
        best = fv.examples(model, colours, shaped, k=5)
        assert check["strength"].figures["best"] == pytest.approx(float(best.top.values[0, 0]))
        assert len(check.company["top"]) == 5
        torch.testing.assert_close(check.company["bottom"][0].image, best.images(0, "bottom")[0])
    negative = fv.render(model, "-class:2 - 0.5*l1", seed=4, steps=6)
    torch.testing.assert_close(found[1].company["negative"][0].image, negative.images[0])
    twin = fv.render(randomization.permuted(model, ONCE), goals, seed=[4, 4], steps=6)
    torch.testing.assert_close(found[1].company["randomized"][0].image, twin.images[1])
    assert found.settings["images"] == 20
    json.dumps(found.record, allow_nan=False)


def test_the_model_comes_back_untouched(colours):
    model = named()
    model.net.train()
    model.net.first.weight.requires_grad_(False)
    weights = {name: t.clone() for name, t in model.net.state_dict().items()}
    draws = torch.get_rng_state()
    fv.check(model, "class:1", images=colours, judges=[named()], steps=3)
    assert all(torch.equal(t, weights[name]) for name, t in model.net.state_dict().items())
    assert all(module.training for module in model.net.modules())
    assert [p.requires_grad for p in model.net.parameters()] == [False, *[True] * 5]
    assert not any(m._forward_hooks for m in model.net.modules())
    assert torch.equal(torch.get_rng_state(), draws)


def test_a_result_is_checked_with_its_settings(colours):
    model = named()
    made = fv.render(model, ["class:0", "class:1"], steps=7, seed=[3, 9], transforms="jitter:2")
    made.images[0] *= 0.5  # what is given is what is checked
    found = fv.check(model, result=made, seeds=2, randomize=False)
    assert [c.seed for c in found] == [3, 9]
    assert torch.equal(found[0].picture, made.images[0])
    other = fv.render(model, "class:1", steps=7, seed=10, transforms="jitter:2")
    torch.testing.assert_close(found[1].company["seeds"][0].image, other.images[0])
    assert found.settings["steps"] == 7
    for record, message in [
        ({**made.record, "param": None}, "its param has no text form"),
        ({**made.record, "optimizer": "SGD"}, "a custom optimizer"),
        ({**made.record, "steps_done": 3}, "the run ended early"),
        ({**made.record, "verb": "dream"}, "its verb is not render"),
    ]:
        with pytest.raises(FeatvizError, match=message):
            recall(record)


def test_what_was_not_asked_for_is_not_measured():
    (found,) = fv.check(named(), "channel:first:1", steps=3, seeds=1, randomize=False)
    assert {c.name: c.why for c in found.criteria if c.verdict == "not measured"} == {
        "strength": "no images were given",
        "judges": "no judges: name networks with the same classes, judges=[…] or --judges",
        "interpretability": "no images were given",
        "randomized": "not requested",
        "path": "no images were given",
        "seeds": "one seed only",
    }
    assert (
        "not measured: strength, judges, interpretability, randomized, path, seeds" in found.overall
    )
    few = fv.check(named(), "channel:first:1", images=torch.rand(2, 3, 8, 8), steps=3)
    assert "too few images" in few[0]["path"].why


def test_a_network_without_known_weights():
    model = fv.Model(lambda x: x.mean((2, 3)), size=8)
    (found,) = fv.check(model, "channel:output:0", steps=3)
    assert found["randomized"].why.startswith("the network has no known weights")


def test_what_cannot_be_optimized_is_not_measured():
    model = fv.Model(nets.seeded(nets.Dead), size=8)
    goals = ["channel:act:0", "channel:act:1"]
    with pytest.warns(fv.FeatvizWarning, match="no gradient"):
        alive, dead = fv.check(model, goals, steps=40, seeds=2)
    assert dead.verdict == "not measured"
    assert {c.verdict for c in dead.criteria} == {"not measured"}
    assert all("no gradient" in c.why for c in dead.criteria)
    assert alive["held_out"].verdict == "ok"
    with pytest.raises(fv.OptimizationError, match="no gradient"):
        fv.check(model, "channel:act:1", steps=40, seeds=1)


def test_signals_are_measured_and_not_drawn(tmp_path):
    model = nets.tiny(spatial=1, channels=2)
    found = fv.check(model, "channel:second:1", images=torch.rand(12, 2, 8), steps=4)
    assert found[0]["held_out"].verdict != "not measured"
    assert found[0]["strength"].verdict != "not measured"
    with pytest.raises(FeatvizError, match="cannot draw"):
        found.save(tmp_path / "out.png")


@pytest.mark.parametrize(
    "stage", ["held_out", "probabilities", "strength_criterion", "layer_similarity", "permuted"]
)
def test_control_c_reports_what_was_measured(stage, monkeypatch):
    owner = next(m for m in (held_out, strength, judges, path, randomization) if hasattr(m, stage))

    def stop(*_, **__):
        raise KeyboardInterrupt

    def model():
        return fv.Model(Circuit(False), size=SIDE, classes=("a",))

    goal = {"judges": [model()], "images": stripes(), "steps": 3}
    whole = fv.check(model(), "channel:unit:0", **goal)
    monkeypatch.setattr(owner, stage, stop)
    cut = fv.check(model(), "channel:unit:0", **goal)
    assert cut.interrupted
    order = ["held_out", "seeds", "judges", "strength", "path", "randomized"]
    done = {
        "held_out": 0,
        "probabilities": 2,
        "strength_criterion": 3,
        "layer_similarity": 4,
        "permuted": 5,
    }[stage]
    for name in order[:done]:
        assert cut[0][name].record == whole[0][name].record
    for name in order[done:]:
        assert cut[0][name].why == "interrupted"


def test_subjects_are_without_penalties():
    for text, wanted in [
        ("class:1 + 20*batchnorm_match - 0.1*l1 + 3", "class:1"),
        ("-channel:a:1 - 0.001*total_variation", "-channel:a:1"),
        ("class:1 - 0.5*class:2 - l2", "class:1 - 0.5*class:2"),
        ("-total_variation", "-total_variation"),
        ("channel:a:1", "channel:a:1"),
    ]:
        assert str(subject(fv.objective(text))) == wanted


@pytest.mark.parametrize(
    ("criteria", "line"),
    [
        (["ok:path", "ok:judges"], "ok: path, judges"),
        (["bad:path", "ok:judges"], "doubtful: path; ok: judges"),
        (["bad:path", "none:seeds"], "doubtful: path; not measured: seeds"),
        (["none:path", "none:seeds"], "nothing measured: path, seeds"),
    ],
)
def test_the_overall_line_claims_only_what_was_measured(criteria, line):
    makers = {
        "ok": lambda n: judge(n, 1.0, "x"),
        "bad": lambda n: doubtful(n, "x"),
        "none": lambda n: not_measured(n, "x"),
    }
    made = [makers[word.split(":")[0]](word.split(":")[1]) for word in criteria]
    assert summarize(tuple(made)) == line


def test_verdicts():
    assert judge("seeds", 0.5, "x").verdict == "ok"
    assert judge("seeds", 0.499, "x").verdict == "doubtful"
    assert judge("randomized", 0.6, "x").verdict == "doubtful"
    assert judge("randomized", -0.6, "x").verdict == "ok"
    assert judge("path", math.nan, "x").verdict == "not measured"
    assert judge("path", 1.0, "x", a=math.nan, b=[math.inf, 1]).record["figures"] == {
        "a": None,
        "b": [None, 1],
    }


# Examples drawn at random.


def test_images_are_drawn_at_random(colours):
    model = named()
    found = fv.examples(model, colours, "class:1", k=2, sample=6, seed=3)
    assert len(set(found.drawn)) == 6
    for index in found.drawn:
        torch.testing.assert_close(found.cache[index], colours[index])
    slow = fv.examples(model, colours, "class:1", k=2, sample=6, seed=3, batch_size=1)
    assert slow.drawn == found.drawn
    assert fv.examples(model, colours, "class:1", k=2, sample=6, seed=4).drawn != found.drawn
    assert sorted(fv.examples(model, colours, "class:1", sample=50).drawn) == list(range(20))
    assert fv.examples(model, colours, "class:1").drawn == []
    hits = np.zeros(20)
    for seed in range(60):
        hits[
            fv.examples(model, colours[:, :, :2, :2], "channel:image:0", sample=5, seed=seed).drawn
        ] += 1
    assert hits.min() >= 5  # 15 of 60 are expected of each
    assert hits.max() <= 28
    with pytest.raises(FeatvizError, match="sample must not be negative"):
        fv.examples(model, colours, "class:1", sample=-1)


# The command line.


def command(*more, model="rgb"):
    return ["check", f"tests.test_check:{model}", *map(str, more)]


def test_the_command(folder, tmp_path, capsys):
    out = tmp_path / "out.png"
    words = ["class:1", "-channel:second:0", "--steps", 4, "--images", folder, "-o", out]
    assert main(command(*words, "--judges", "tests.test_check:twin", "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["objective"] == ["class:1", "-channel:second:0"]
    for check in document["checks"]:
        assert list(check["criteria"]) == list(NAMES)
        for criterion in check["criteria"].values():
            assert criterion["verdict"] in ("ok", "doubtful", "not measured")
            assert criterion["why"]
    seen = document["checks"][0]["criteria"]["judges"]["figures"]
    assert seen["judges"]["tests.test_check:twin"]["probability"] == seen["own_probability"]
    assert document["steps"] == 4
    files = [tmp_path / "out.class-1.png", tmp_path / "out.negative-channel-second-0.png"]
    assert document["files"] == [str(f) for f in files]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    carried = pictures.read_settings(files[1])
    assert carried["checks"] == document["checks"][1:]
    assert nets.opened(files[0]).width > 5 * 112 + 400

    assert main(command("class:1", "--steps", 2, "--no-randomize", "-o", out)) == 0
    said = capsys.readouterr().out
    assert out.exists()
    for line in (
        "strength: not measured (no images were given)",
        "path: not measured (no images were given)",
        "randomized: not measured (not requested)",
    ):
        assert line in said


def test_several_judges(capsys):
    for words in (
        ["class:1", "--judges", "tests.test_check:twin", "efficientnet_lite1"],
        ["class:1", "--judges", "tests.test_check:twin,efficientnet_lite1"],
        ["--judges", "tests.test_check:twin", "--judges", "efficientnet_lite1", "class:1"],
    ):
        assert main(command(*words, "--steps", 2, "--no-randomize", "--json")) == 0
        (check,) = json.loads(capsys.readouterr().out)["checks"]
        figures = check["criteria"]["judges"]["figures"]
        assert list(figures["judges"]) == ["tests.test_check:twin"]
        assert figures["excluded"] == {"efficientnet_lite1": "its class names differ"}


def test_a_picture_of_featviz_is_checked(tmp_path, capsys):
    picture = tmp_path / "cat.png"
    words = ["tests.test_check:rgb", "class:1", "--steps", "5", "--seed", "7", "-o", str(picture)]
    assert main(["render", *words, "--transforms", "jitter:1"]) == 0
    capsys.readouterr()
    assert main(["check", "--from", str(picture), "--trust", "--json", "--no-randomize"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["steps"], document["transforms"]) == (5, "jitter:1")
    made = fv.render(rgb(), "class:1", steps=5, seed=7, transforms="jitter:1")
    assert document["checks"][0]["score"] == pytest.approx(made.scores.item(), abs=1e-5)
    again = ["check", "--from", str(picture), "--trust", "--no-randomize"]
    judge = ["tests.test_check:twin", "efficientnet_lite1"]
    assert main([*again, "--judges", *judge, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["checks"][0]["criteria"]["judges"]["figures"]
    assert [*figures["judges"], *figures["excluded"]] == judge
    for more in (["--seed", "5"], ["--precision", "bf16"], ["--steps", "3"]):
        assert main([*again, *more]) == 2
        assert "--from reads" in capsys.readouterr().err


class Stopped(nets.Small):
    """Is interrupted on its way."""

    def __init__(self):
        super().__init__(3)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 10:
            raise KeyboardInterrupt
        return super().forward(x)


def interrupted() -> fv.Model:
    return fv.Model(nets.seeded(Stopped), mean=0.5, std=0.25, size=8, channels=3)


def test_control_c_on_the_command_line(tmp_path, capsys):
    out = tmp_path / "out.png"
    words = ["class:1", "--steps", 9, "-o", out, "--json"]
    assert main(command(*words, model="interrupted")) == 130
    document = json.loads(capsys.readouterr().out)
    assert document["interrupted"]
    (check,) = document["checks"]
    assert check["verdict"] == "not measured"
    assert check["criteria"]["held_out"]["why"] == "interrupted"
    assert out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a model and at least one objective"),
        (["channel:secnd:1"], "did you mean 'second'"),
        (["class:9"], "no class 9"),
        (["diversity:first"], "objectives of single images"),
        (["class:1", "--images", "nowhere"], "no folder 'nowhere'"),
        (["class:1", "--images", "."], "no images in"),
        (["class:1", "--judges", "efficientnet_lite9"], "did you mean"),
        (["class:1", "efficientnet_lite1"], "put --judges before it"),
        (["class:1", "--seeds", "0"], "seeds must be positive"),
        (["class:1", "--steps", "0"], "steps must be positive"),
        (["class:1", "-k", "0"], "k must be positive"),
        (["class:1", "--quality", "god"], "no quality 'god'"),
        (["class:1", "--param", "alpha"], "opaque images"),
        (["class:1", "-o", "out.txt"], "its extension names no image format"),
        (["class:1", "-o", "missing/out.png"], "there is no folder"),
        (["--from", "nowhere.png"], "cannot read"),
    ],
)
def test_bad_input_on_the_command_line(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(command(*words)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"objective": None}, "either objectives or a result"),
        ({"objective": []}, "at least one objective"),
        ({"qualty": "fast"}, "did you mean 'quality'"),
        ({"model": nets.Small()}, "takes a featviz.Model"),
    ],
)
def test_bad_input_in_python(given, message):
    arguments = {"model": named(), "objective": "class:1", "steps": 2, **given}
    with pytest.raises(FeatvizError, match=message):
        fv.check(**arguments)


def test_unknown_criteria():
    (found,) = fv.check(named(), "class:1", steps=2, seeds=1, randomize=False)
    with pytest.raises(FeatvizError, match="no criterion 'road'; known: strength"):
        found["road"]
