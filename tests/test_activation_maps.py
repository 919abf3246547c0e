"""Class activation maps: against the formulas of the papers on the bare network, and by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv
from featviz.errors import FeatvizError, FeatvizWarning
from tests import nets
from tests.test_attribute import CLASS, Cam, pictures
from tests.test_transformers import Vit

FAMILY = ["cam", "grad_cam", "grad_cam_plus_plus", "layer_cam", "score_cam"]


def layer_and_slopes(model, x, logit):
    """The maps of ``second`` and the gradient by them, by plain autograd in double precision."""
    net, seen = model.net.double().eval(), []
    handle = net.second.register_forward_hook(lambda *a: seen.append(a[2]))
    value = net((x.double() - 0.5) / 0.25)[0, logit]
    handle.remove()
    (slopes,) = torch.autograd.grad(value, seen[0])
    return seen[0].detach()[0], slopes[0]


def upsampled(grid, size):
    grid = grid[None, None].float()
    return F.interpolate(grid, size, mode="bilinear", align_corners=False)


def plus_plus(maps, slopes):
    """Equations 11 and 19 of the paper, written out."""
    total = torch.zeros(maps.shape[1:], dtype=maps.dtype)
    for a, g in zip(maps, slopes, strict=True):
        below = 2 * g**2 + a.sum() * g**3
        alpha = torch.where(g != 0, g**2 / below, 0)
        total += (alpha * g.clamp_min(0)).sum() * a
    return total.clamp_min(0)


@pytest.mark.parametrize(
    ("method", "formula"),
    [
        ("cam", lambda a, g: torch.einsum("k,kyx->yx", g.sum((1, 2)), a)),
        ("grad_cam", lambda a, g: torch.einsum("k,kyx->yx", g.mean((1, 2)), a).clamp_min(0)),
        ("grad_cam_plus_plus", plus_plus),
        ("layer_cam", lambda a, g: (g.clamp_min(0) * a).sum(0).clamp_min(0)),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_the_formula_on_the_bare_network(method, formula, seed):
    net = nets.seeded(lambda: nets.Small(2), seed + 20)
    model = fv.Model(net, mean=0.5, std=0.25, size=(8, 10), channels=2)
    x = pictures(1, seed=seed)
    goal = fv.class_logit(int(model(x).argmax()))
    made = fv.attribute(model, x, goal, method=method, layer="second")
    maps, slopes = layer_and_slopes(model, x, int(str(goal).split(":")[1]))
    want = upsampled(formula(maps, slopes), (8, 10))
    assert want.any()
    torch.testing.assert_close(made.attributions, want, rtol=1e-4, atol=1e-7)


def test_the_mean_of_cam_is_the_objective():
    model = fv.Model(Cam(), size=(2, 4), channels=1, mean=0.5)
    x = torch.tensor([[[[0.0, 0.25, 0.75, 1.0], [1.0, 0.75, 0.5, 0.25]]]])
    made = fv.attribute(model, x, fv.channel("output", 0) + 4, method="cam")
    torch.testing.assert_close(made.attributions.mean((1, 2, 3)), made.scores - 4)
    assert (made.attributions < 0).any()


def test_score_cam_is_the_softmax_of_what_the_maps_show():
    model, x = nets.tiny(), pictures(1)
    model.mean = (0.0, 0.0)  # black is zero in the network, as in the paper
    model.std = (1.0, 1.0)
    made = fv.attribute(model, x, CLASS, method="score_cam", layer="act", baseline="black")
    maps = model.net.act(model.net.first(x))[0].detach()
    varied = [a for a in maps if a.max() > a.min()]
    shown = [x * (a - a.min()) / (a.max() - a.min()) for a in varied]
    weights = torch.stack([model.net(s)[0, 1] for s in shown]).softmax(0).detach()
    want = sum(w * a for w, a in zip(weights, varied, strict=True)).clamp_min(0)
    assert len(varied) > 1
    torch.testing.assert_close(made.attributions[0, 0], want, rtol=1e-4, atol=1e-6)
    traced = fv.attribute(
        model, x, CLASS, method="score_cam", layer="act", baseline="black", batch_size=1
    )
    torch.testing.assert_close(traced.attributions, made.attributions, rtol=1e-4, atol=1e-6)


class MeanVit(Vit):
    """Averages the patch tokens instead of reading the class token."""

    def __init__(self):
        super().__init__(prefix=0)
        self.tokens = nn.Parameter(torch.zeros(1, 0, 12))

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))


@pytest.mark.parametrize("method", [m for m in FAMILY if m != "cam"])
def test_on_the_tokens_of_a_transformer(method):
    net = nets.seeded(Vit)
    with torch.no_grad():
        net.patch.bias.add_(1)  # so that the mean of the maps, near Score-CAM's, is positive
    model, x = fv.Model(net, size=(16, 24)), pictures(1, 3, (16, 24))
    made = fv.attribute(model, x, fv.class_logit(2), method=method)
    assert made.settings["layer"] == "blocks.4"  # a block, and the last with patches that count
    assert made.attributions.shape == (1, 1, 16, 24)
    assert made.attributions.any()
    net, seen = model.net.eval(), []
    handle = net.blocks[4].register_forward_hook(lambda *a: seen.append(a[2]))
    value = net(x)[0, 2]
    handle.remove()
    (slopes,) = torch.autograd.grad(value, seen[0])
    a, g = (t[0, 3:].detach().T.reshape(12, 4, 6) for t in (seen[0], slopes))
    if method == "layer_cam":
        want = (g.clamp_min(0) * a).sum(0).clamp_min(0)
        torch.testing.assert_close(made.attributions, upsampled(want, (16, 24)), rtol=1e-3, atol=0)
    if method == "grad_cam_plus_plus":
        want = plus_plus(a.double(), g.double())
        torch.testing.assert_close(
            made.attributions, upsampled(want, (16, 24)), rtol=1e-3, atol=1e-8
        )


def test_cam_of_a_transformer_that_averages_its_patches():
    model, x = fv.Model(nets.seeded(MeanVit), size=(16, 24)), pictures(1, 3, (16, 24))
    made = fv.attribute(model, x, fv.class_logit(2), method="cam", layer="norm")
    tokens = model.activations(x, ["norm"])["norm"][0]
    want = upsampled((tokens @ model.net.head.weight[2]).detach().view(4, 6), (16, 24))
    torch.testing.assert_close(made.attributions, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "goal", "layer"),
    [
        (lambda: fv.Model(nets.seeded(Vit), size=(16, 24)), "class:2", None),  # a class token
        (lambda: nets.tiny(channels=3), "probability:1", "second"),  # not linear
        (lambda: nets.tiny(channels=3), "class:1", "first"),  # a ReLU in between
    ],
)
def test_cam_refuses_what_is_no_average_of_maps(make, goal, layer):
    x = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(3))
    with pytest.raises(FeatvizError, match=r"cam needs an objective that is .*: use grad_cam"):
        fv.attribute(make(), x, goal, method="cam", layer=layer)


@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_plus_plus", "layer_cam"])
def test_a_map_without_evidence_says_so(method):
    model = fv.Model(Cam(), size=(2, 4), channels=1, mean=0.5)
    x = torch.full((1, 1, 2, 4), 0.25)
    goal = fv.channel("output", 0)  # only the second map is there, and it speaks against
    with pytest.warns(FeatvizWarning, match="has no evidence for channel:output:0 at any"):
        made = fv.attribute(model, x, goal, method=method)
    assert not made.attributions.any()
    assert (fv.attribute(model, x, goal, method="cam").attributions < 0).all()


def test_score_cam_refuses_maps_without_any_variation():
    model = fv.Model(Cam(), size=(2, 4), channels=1, mean=0.5)
    with pytest.raises(FeatvizError, match="every map of layer 'relu' is the same at all"):
        fv.attribute(model, torch.full((1, 1, 2, 4), 0.75), "channel:output:0", method="score_cam")


@pytest.mark.parametrize("method", [m for m in FAMILY if m != "score_cam"])  # takes 1280 passes
def test_on_a_photograph_the_cat_is_what_makes_the_cat(lite0, photos, method):
    made = fv.attribute(lite0, photos[:1], fv.class_logit(285), method=method)
    heat = made.pixels[0].clamp_min(0)
    face = heat[20:170, 60:200].sum() / heat.sum()
    assert face > 1.2 * 150 * 140 / 224**2, float(face)
