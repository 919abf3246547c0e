"""Layers of windows put back into the image: against windows cut by hand, and by perturbation."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv
from featviz.errors import LayerError
from featviz.optim.forward import ForwardPass
from tests import nets

SIDE, WIDTH = 3, 8


class WindowAttention(nn.Module):
    """Attention among the tokens (B·windows, N, C) of each window."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.softmax = nn.Softmax(-1)

    def forward(self, x):
        n, tokens, c = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        x = self.softmax(q @ k.transpose(-2, -1) / 2) @ v
        return self.proj(x.transpose(1, 2).reshape(n, tokens, c))


class SwinBlock(nn.Module):
    """A block of Swin on maps (B, H, W, C): padded, shifted, cut into windows, and put back."""

    def __init__(self, shift):
        super().__init__()
        self.shift = shift
        self.norm, self.attn = nn.LayerNorm(WIDTH), WindowAttention()
        self.mlp = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        b, h, w, c = x.shape
        y = F.pad(self.norm(x), (0, 0, 0, -w % SIDE, 0, -h % SIDE))
        y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        high, wide = y.shape[1] // SIDE, y.shape[2] // SIDE
        y = y.view(b, high, SIDE, wide, SIDE, c).permute(0, 1, 3, 2, 4, 5)
        y = self.attn(y.reshape(-1, SIDE * SIDE, c))
        y = y.view(b, high, wide, SIDE, SIDE, c).permute(0, 1, 3, 2, 4, 5)
        y = y.reshape(b, high * SIDE, wide * SIDE, c)
        x = x + torch.roll(y, (self.shift, self.shift), (1, 2))[:, :h, :w]
        return x + self.mlp(F.gelu(x))


class Swin(nn.Module):
    """Two blocks, patch merging, a third one; ``flat`` hands tokens (B, N, C) between them."""

    def __init__(self, flat=False):
        super().__init__()
        self.flat = flat
        self.patch = nn.Conv2d(3, WIDTH, 2, 2)
        self.blocks = nn.ModuleList([SwinBlock(0), SwinBlock(1), SwinBlock(1)])
        self.merge = nn.Linear(4 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x):
        x = self.patch(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        for block in self.blocks[:2]:
            x = block(x)
            if self.flat:
                x = x.reshape(b, h * w, c).view(b, h, w, c)
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        return self.head(self.blocks[2](self.merge(x)).mean((1, 2)))


def swin(flat=False, size=(24, 32)):
    return fv.Model(nets.seeded(lambda: Swin(flat)), size=size)


@pytest.fixture
def images():
    return torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_linear_layers_of_windows_are_those_of_the_map(images, block, flat):
    """What a linear layer makes of a window's token is what it makes of the map's position."""
    model = swin(flat)
    name = f"blocks.{block}.attn.qkv"
    found = model.activations(images, [f"blocks.{block}.norm", f"{name}.map", "output"])
    maps = model.net.blocks[block].attn.qkv(found[f"blocks.{block}.norm"]).permute(0, 3, 1, 2)
    torch.testing.assert_close(found[f"{name}.map"], maps.detach())
    torch.testing.assert_close(found["output"], model(images))
    info = model.layer(f"{name}.map")
    assert (info.shape, info.axis) == ((24, 12, 16) if block < 2 else (24, 6, 8), 1)
    assert info.is_map(2)
    assert not info.guessed


@pytest.mark.parametrize("block", [0, 1])
def test_what_attention_returns_is_at_the_position_of_its_query(images, block):
    model = swin()
    names = [f"blocks.{block}.attn.map", f"blocks.{block}"]
    found = model.activations(images, names)
    net, seen = model.net.blocks[block], []
    handle = net.mlp.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    model(images)
    handle.remove()
    before = model.net.patch(images).permute(0, 2, 3, 1)
    for earlier in model.net.blocks[:block]:
        before = earlier(before)
    # x + attention is what GELU, and then the MLP, take.
    sums = F.gelu(before.permute(0, 3, 1, 2) + found[names[0]])
    torch.testing.assert_close(sums.detach(), seen[0].permute(0, 3, 1, 2).detach())


def test_later_layers_have_gradients_by_the_map(images):
    model = swin()
    leaf = images.clone().requires_grad_()
    with model.session():
        found = model.capture(leaf, ["blocks.1.attn.proj.map", "output"], model.layers())
        total = found["output"][:, 1].sum()
        slope, to_images = torch.autograd.grad(total, [found["blocks.1.attn.proj.map"], leaf])
    plain = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(plain)[:, 1].sum(), plain)
    torch.testing.assert_close(to_images, expected, rtol=1e-4, atol=1e-6)
    assert (slope != 0).all()


def test_verbs_take_them_traced_or_not(images):
    model = swin()
    names = ["blocks.0.attn.qkv.map", "blocks.1.attn.map"]
    passes = [ForwardPass(model, model.size, traced=t) for t in (True, False)]
    with model.session():
        traced, plain = (p.activations(images, names) for p in passes)
    for name in names:
        torch.testing.assert_close(traced[name], plain[name])
    assert all(p is not None for p in passes[0].traces.passes.values())
    goal = fv.neuron("blocks.1.attn.map", 3, 2, 5)  # unit, row, column
    made = fv.render(model, goal, steps=40)
    assert made.scores[0] > goal(model, torch.full((1, 3, 24, 32), 0.5))[0]
    found = fv.attribute(model, images[:1], goal, method="saliency").attributions
    assert found.sum((0, 1)).argmax() // 32 in range(2, 12)  # rows 2 x 2 to 2 x (3 + 3) - 1
    assert fv.examples(model, images, goal, k=1).count == 2


def test_other_sizes_have_their_own_windows():
    model = swin()
    images = torch.rand(1, 3, 20, 44)
    found = model.activations(images, ["blocks.1.norm", "blocks.1.attn.qkv.map"])
    maps = model.net.blocks[1].attn.qkv(found["blocks.1.norm"]).permute(0, 3, 1, 2)
    torch.testing.assert_close(found["blocks.1.attn.qkv.map"], maps.detach())


def test_refusals():
    model = swin()
    with pytest.raises(LayerError, match=r"'blocks.0.attn.qkv.map' has its windows put back"):
        model.layer("blocks.0.attn.qkv")
    with pytest.raises(LayerError, match=r"'blocks.0.norm' is not of windows: it is used as it"):
        model.layer("blocks.0.norm.map")
    with pytest.raises(LayerError, match=r"is a guess: declare it, axes="):
        model.layer("blocks.0.attn.softmax.map")
    with pytest.raises(LayerError, match="its first axis is not the batch"):
        model.layer("blocks.0.attn.pattern")
    with pytest.raises(fv.FeatvizError, match=r"'blocks.0.attn.map' is not; name a module"):
        fv.attribute(
            model, torch.rand(1, 3, 24, 32), "class:1", method="grad_cam", layer="blocks.0.attn.map"
        )


def test_of_tiny_vit():
    """Somebody else's windows: padded, of three sizes, between blocks that hand on tokens."""
    tiny = pytest.importorskip("kornia").contrib.TinyViT
    options = {"depths": [1, 2, 2, 2], "num_heads": [1, 2, 2, 2], "window_sizes": [3, 3, 3, 2]}
    net = nets.seeded(
        lambda: tiny(img_size=64, num_classes=10, embed_dims=[32, 32, 64, 64], **options)
    )
    model, images = fv.Model(net, size=64), torch.rand(2, 3, 64, 64)
    table = model.layers()
    assert {i.name for i in table if not i.batched} == set(table.windows)
    for block, side in {"layers.1.blocks.1": 8, "layers.2.blocks.0": 4}.items():
        found = model.activations(images, [f"{block}.attn.norm.map", f"{block}.in"])
        tokens = found[f"{block}.in"].unflatten(1, (side, side))
        norm = net.get_submodule(f"{block}.attn.norm")
        maps = norm(tokens).permute(0, 3, 1, 2).detach()
        torch.testing.assert_close(found[f"{block}.attn.norm.map"].detach(), maps)


def test_a_learned_order_of_tokens_is_not_followed():
    class Sorted(Swin):
        def forward(self, x):
            x = self.patch(x).permute(0, 2, 3, 1)
            b, h, w, c = x.shape
            tokens = x.reshape(b, h * w, c)
            order = tokens[..., 0].argsort(1)
            tokens = tokens.gather(1, order[..., None].expand(-1, -1, c))
            y = self.blocks[0].attn(tokens.reshape(-1, 8, c))
            return self.head(y.reshape(b, -1, c).mean(1))

    model = fv.Model(nets.seeded(Sorted), size=(24, 32))
    with pytest.raises(LayerError, match="cannot be followed"):
        model.layer("blocks.0.attn.qkv.map")
    with pytest.raises(LayerError, match="name a layer before or after it"):
        model.layer("blocks.0.attn.qkv")
