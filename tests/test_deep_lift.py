"""DeepLIFT and integrated gradients: complete, by hand, and equal to captum where that is right."""

import captum.attr
import pytest
import skimage.data
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import featviz as fv
from featviz.attribution.baseline_sets import baseline_sets
from featviz.attribution.integrated import MOST
from tests import nets
from tests.test_relevance import CONSERVED, PAIR, Functional, VggLike, one_relu

CLASS = fv.class_logit(1)


def batch(count=2, channels=3, size=(16, 16), seed=3):
    return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(seed))


def test_by_hand():
    # From b = 0, h = relu(1/2, -1) = (1/2, 0) and o = 1.5; at x, h = (1, 2) of (1, 2) and o = 8.
    model = fv.Model(one_relu().float(), size=(1, 2), channels=1)
    made = fv.attribute(model, PAIR, "channel:output:0", method="deep_lift")
    # h1 has the slope 1 and h2 2 / 3: m1 = 1 + 3 (2/3) 2 = 5 and m2 = -1 + 3 (2/3) 2 = 3.
    torch.testing.assert_close(made.attributions.flatten(), torch.tensor([5.0, 1.5]))
    assert made.baseline_scores.item() == pytest.approx(1.5)
    assert made.delta.abs().item() < 1e-5


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
def test_equal_to_captum_on_module_relus():
    # Without max-pooling, for which captum has the same sum but shares it out otherwise.
    net = nets.seeded(VggLike).eval()
    net.features[4] = net.features[7] = nn.AvgPool2d(2)
    model, x = fv.Model(net, size=(16, 16), channels=3), batch()
    made = fv.attribute(model, x, CLASS, method="deep_lift", baseline=0.3)
    leaf = x.clone().requires_grad_()
    # captum wants each module to run once, on the image and on the baseline together.
    want = captum.attr.DeepLift(net).attribute(leaf, torch.full_like(x, 0.3), target=1)
    torch.testing.assert_close(made.attributions, want.detach(), rtol=1e-4, atol=1e-6)
    grounds = [0.3, 0.6, 0.9]
    made = fv.attribute(model, x, CLASS, method="deep_lift", baseline=grounds)
    flat = torch.stack([torch.full((3, 16, 16), g) for g in grounds])
    want = captum.attr.DeepLiftShap(net).attribute(leaf, flat.clone().requires_grad_(), target=1)
    torch.testing.assert_close(made.attributions, want.detach(), rtol=1e-4, atol=1e-6)
    scores = torch.stack([model(flat[i : i + 1])[0, 1] for i in range(3)])
    torch.testing.assert_close(made.baseline_scores, scores.mean().detach().expand(2))


@pytest.mark.parametrize("name", [n for n in CONSERVED if n != "selected"])
def test_complete_for_every_operation(name):
    net = nets.seeded(lambda: Functional(CONSERVED[name]))
    model = fv.Model(net.double(), size=(6, 7), channels=2)
    x = torch.rand(1, 2, 6, 7, generator=torch.Generator().manual_seed(1))
    goal = "channel:output:0 - 2*channel:output:2"
    made = fv.attribute(model, x, goal, method="deep_lift", baseline=0.2)
    difference = made.scores - made.baseline_scores
    assert difference.abs() > 1e-4
    # Only the selection of a maximum is approximated.
    tolerance = 0.02 if name == "max" else 1e-3
    torch.testing.assert_close(made.delta / difference, torch.zeros(1), rtol=0, atol=tolerance)


@pytest.mark.parametrize("objective", ["layer:first", "class:1 * class:2", "channel:second:1 - l1"])
def test_complete_for_objectives_that_are_not_linear(objective):
    made = fv.attribute(nets.tiny(), batch(2, 2, (8, 8)), objective, method="deep_lift")
    difference = made.scores - made.baseline_scores
    torch.testing.assert_close(made.delta / difference, torch.zeros(2), rtol=0, atol=1e-4)


def test_max_pooling_sends_differences_to_the_maxima():
    # Windows of two: the maximum rises from b2 to x1, falls from b1 to x2, and stays.
    x = torch.tensor([0.9, 0.3, 0.1, 0.4, 0.5, 0.5]).view(1, 1, 6)
    b = torch.tensor([0.2, 0.6, 0.8, 0.0, 0.5, 0.2]).view(1, 1, 6)

    class Pool(nn.Module):
        def forward(self, x):
            return F.max_pool1d(x, 2).flatten(1)

    model = fv.Model(Pool(), size=(6,), channels=1)
    goal = fv.direction("output", torch.ones(3).numpy())
    made = fv.attribute(model, x, goal, method="deep_lift", baseline=b)
    want = torch.tensor([0.3, 0.0, -0.4, 0.0, 0.0, 0.0])
    torch.testing.assert_close(made.attributions.flatten(), want, rtol=1e-5, atol=1e-6)


def test_selections_that_change_are_refused():
    model = fv.Model(nets.seeded(lambda: Functional(CONSERVED["selected"])), size=6, channels=2)
    with pytest.raises(fv.FeatvizError, match="operation where, which selects other values"):
        fv.attribute(model, batch(1, 2, (6, 6)), "class:1", method="deep_lift")


class Step(nn.Module):
    """Jumps half-way: no slope explains it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return (torch.floor(2 * x * self.weight) + x * 0.01).flatten(1)


@pytest.mark.parametrize("method", ["deep_lift", "integrated_gradients"])
def test_what_is_not_complete_says_so(method):
    model, x = fv.Model(Step(), size=(2, 2), channels=1), torch.full((1, 1, 2, 2), 0.75)
    with pytest.warns(
        fv.FeatvizWarning, match=r"adds up to .* instead of 1\.008.*delta -1"
    ) as seen:
        made = fv.attribute(model, x, "channel:output:0", method=method)
    assert made.delta.item() == pytest.approx(-1, abs=1e-3)
    assert ("not reached in 1024 steps" in str(seen[0].message)) == (method[0] == "i")
    if method[0] == "i":
        assert made.settings["steps"] <= MOST


class Kinks(nn.Module):
    """A narrow peak on the path: 16 points evenly on it may miss it."""

    def forward(self, x):
        return (F.relu(1 - 200 * (x - 0.6137).abs()) + 0.3 * x).flatten(1)


def test_integrated_gradients_take_the_steps_that_they_need():
    model = fv.Model(Kinks(), size=(1, 1), channels=1)
    x = torch.full((1, 1, 1, 1), 0.6137)
    made = fv.attribute(model, x, "channel:output:0", method="integrated_gradients")
    assert made.delta.abs() < 0.01 * (made.scores - made.baseline_scores)
    assert 16 < made.settings["steps"] < 200
    easy = fv.attribute(model, x / 2, "channel:output:0", method="integrated_gradients")
    assert easy.settings["steps"] == 16
    closer = fv.attribute(
        model, x, "channel:output:0", method="integrated_gradients", tolerance=1e-4
    )
    assert (
        closer.delta.abs() < made.delta.abs() or closer.settings["steps"] > made.settings["steps"]
    )


def test_complete_on_inner_differences_of_photographs(lite0, photos):
    goal = "channel:_blocks.12:33 - channel:_blocks.12:8"
    small = F.interpolate(photos[:1], (96, 96), mode="area")
    for method in ("integrated_gradients", "deep_lift"):
        made = fv.attribute(lite0, small, goal, method=method)
        assert made.delta.abs() < 0.01 * (made.scores - made.baseline_scores).abs()


def test_integrated_gradients_average_over_baselines(tiny):
    x = batch(1, 2, (8, 8))
    grounds = ["black", 0.5, batch(1, 2, (8, 8), seed=9)]
    fixed = {"steps": 20, "tolerance": 1.0}
    each = [
        fv.attribute(tiny, x, CLASS, method="integrated_gradients", baseline=g, **fixed)
        for g in grounds
    ]
    made = fv.attribute(tiny, x, CLASS, method="integrated_gradients", baseline=grounds, **fixed)
    mean = torch.stack([e.attributions for e in each]).mean(0)
    torch.testing.assert_close(made.attributions, mean, rtol=1e-4, atol=1e-6)
    mean = torch.stack([e.baseline_scores for e in each]).mean(0)
    torch.testing.assert_close(made.baseline_scores, mean)
    assert made.record["baseline"] == ["black", 0.5, "given"]


def test_baselines_by_name(tmp_path):
    for i in range(5):
        Image.fromarray(skimage.data.coffee()[: 50 + i, :60]).save(tmp_path / f"{i}.png")
    images = batch(2, 3, (10, 12))
    sets = baseline_sets(f"black, 0.25, uniform:3, noise:2, data:{tmp_path}:4", images, [4, 5])
    assert sets.shape == (2, 1 + 1 + 3 + 2 + 4, 3, 10, 12)
    assert not sets[:, 0].any()
    assert (sets[:, 1] == 0.25).all()
    uniform, noise, data = sets[:, 2:5], sets[:, 5:7], sets[:, 7:]
    assert abs(uniform.mean() - 0.5) < 0.05
    assert not torch.equal(uniform[0], uniform[1])
    assert 0.1 < (noise - images[:, None]).std() < 0.2  # of 0.2, clipped
    assert torch.equal(data[0], data[1])
    assert not torch.equal(data[0, 0], data[0, 3])
    # Each image has its own draws.
    alone = baseline_sets("uniform:3", images[1:], [5])
    assert torch.equal(alone[0], uniform[1])
    assert baseline_sets(f"data:{tmp_path}", images, [4, 5]).shape[1] == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"baseline": "black, blurr"}, r"no baseline 'blurr': use .*did you mean 'blur'"),
        ({"baseline": "uniform:0"}, "the count must be from 1"),
        ({"baseline": "noise:many"}, "noise:many"),
        ({"baseline": "data"}, "needs a folder"),
        ({"baseline": []}, "at least one baseline"),
        ({"baseline": ["black", 3.0]}, r"a baseline must be in \[0, 1\], not 3"),
        ({"baseline": "black, blur", "method": "occlusion"}, "occlusion takes one baseline"),
        ({"tolerance": 0.0}, "tolerance must be"),
        ({"steps": 3}, "method deep_lift takes no steps"),
    ],
)
def test_bad_options_are_one_line(tiny, given, message):
    with pytest.raises(fv.FeatvizError, match=message) as caught:
        fv.attribute(tiny, batch(1, 2, (8, 8)), CLASS, **{"method": "deep_lift", **given})
    assert "\n" not in str(caught.value)
