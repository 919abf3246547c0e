"""Defaults on vision transformers: token grids in units, dreams and attribution."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv
from featviz.dreaming.defaults import default_layer
from featviz.errors import FeatvizError, FeatvizWarning
from tests import nets


class Block(nn.Module):
    def __init__(self, width=12, heads=3):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.k_norm = nn.LayerNorm(width // heads)
        self.proj = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, self.k_norm(k), v)
        x = x + self.proj(attended.transpose(1, 2).reshape(b, n, c))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """Six blocks, a class token and registers, 4 x 6 patches of an image of 16 x 24."""

    def __init__(self, prefix=3):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.tokens = nn.Parameter(torch.randn(1, prefix, 12))
        self.blocks = nn.Sequential(*(Block() for _ in range(6)))
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.tokens.expand(len(x), -1, -1), x], 1)
        return self.head(self.norm(self.blocks(x))[:, 0])


@pytest.fixture(scope="module")
def vit():
    return fv.Model(nets.seeded(Vit), size=(16, 24))


def test_the_centre_of_tokens_is_the_middle_patch(vit):
    images = torch.rand(2, 3, 16, 24)
    tokens = vit.activations(images, ["blocks.2"])["blocks.2"]
    centre = fv.neuron("blocks.2", 5)(vit, images)
    assert torch.equal(centre, tokens[:, 3 + 2 * 6 + 3, 5])
    assert torch.equal(centre, fv.neuron("blocks.2", 5, 2, 3)(vit, images))


def test_a_dream_of_a_transformer_is_of_a_block(vit):
    assert default_layer(vit) == "blocks.4"
    result = fv.dream(vit, torch.rand(3, 16, 24), octaves=1, steps=1)
    assert "layer:blocks.4" in str(result.settings)


def test_grad_cam_on_patch_tokens(vit):
    image = torch.rand(1, 3, 16, 24)
    result = fv.attribute(vit, image, fv.class_logit(2), method="grad_cam")
    assert result.settings["layer"] == "blocks.4"  # the last one reaches the class token only
    net, seen = vit.net.eval(), []
    handle = net.blocks[4].register_forward_hook(lambda *a: seen.append(a[2]))
    logit = net(image)[0, 2]
    handle.remove()
    (slopes,) = torch.autograd.grad(logit, seen[0])
    grid = (seen[0][0, 3:] @ slopes[0, 3:].mean(0)).clamp_min(0).detach().view(1, 1, 4, 6)
    expected = F.interpolate(grid, (16, 24), mode="bilinear", align_corners=False)
    assert expected.any()
    torch.testing.assert_close(result.attributions.sum(1), expected.sum(1), rtol=1e-3, atol=1e-6)
    with pytest.raises(FeatvizError, match=r"maps .* or patch tokens"):
        fv.attribute(vit, image, fv.class_logit(2), method="grad_cam", layer="blocks.2.k_norm")


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_methods_for_relus_say_that_there_is_none(vit, method):
    with pytest.warns(FeatvizWarning, match="acts on ReLUs, and none ran"):
        fv.attribute(vit, torch.rand(1, 3, 16, 24), fv.class_logit(2), method=method)
