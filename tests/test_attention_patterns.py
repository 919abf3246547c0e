"""Attention patterns as layers: against q and k by hand, wherever the network computes them."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv
from featviz.errors import LayerError
from featviz.networks.attention import attention_pattern
from featviz.optim.forward import ForwardPass
from tests import nets


class Attention(nn.Module):
    """timm's attention: fused qkv, and both of its code paths."""

    def __init__(self, fused, width=12, heads=3):
        super().__init__()
        self.fused, self.heads = fused, heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = nn.LayerNorm(width // heads), nn.LayerNorm(width // heads)
        self.attn_drop = nn.Dropout(0.5)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.fused:
            dropout = self.attn_drop.p if self.training else 0.0
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        else:
            weights = (q * (c // self.heads) ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1)
            x = self.attn_drop(weights) @ v
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    def __init__(self, attention, width=12):
        super().__init__()
        self.norm, self.attn = nn.LayerNorm(width), attention
        self.mlp = nn.Linear(width, width)

    def forward(self, x):
        x = x + self.attn(self.norm(x))
        return x + F.gelu(self.mlp(x))


class Vit(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        self.blocks = nn.Sequential(*(Block(attention()) for _ in range(3)))
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        return self.head(self.blocks(x)[:, 0])


def vit(attention):
    return fv.Model(nets.seeded(lambda: Vit(attention)), size=(16, 24))


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def by_hand(q, k, mask=0.0, scale=None):
    scores = torch.einsum("bhid,bhjd->bhij", q.double(), k.double())
    scores = scores * (1 / math.sqrt(q.shape[-1]) if scale is None else scale) + mask
    exponentials = scores.exp()
    return (exponentials / exponentials.sum(-1, keepdim=True)).float()


@pytest.mark.parametrize("fused", [True, False])
def test_of_a_vision_transformer(images, fused):
    model = vit(lambda: Attention(fused))
    before = model(images)
    name = "blocks.1.attn.pattern"
    found = model.activations(images, [name, "blocks.1.attn.q_norm", "blocks.1.attn.k_norm"])
    expected = by_hand(found["blocks.1.attn.q_norm"], found["blocks.1.attn.k_norm"])
    torch.testing.assert_close(found[name], expected)
    info = model.layer(name)
    assert (info.shape, info.axis, info.units) == ((3, 25, 25), 1, 3)
    assert not info.guessed
    both = model.activations(images, [name, "output"])
    torch.testing.assert_close(both["output"], before)
    assert torch.equal(model(images), before)


def test_of_all_blocks_at_once(images):
    model = vit(lambda: Attention(True))
    single = [model.activations(images, f"blocks.{i}.attn.pattern") for i in range(3)]
    names = [f"blocks.pattern[{i}]" for i in range(3)]
    found = model.activations(images, names)
    for name, one in zip(names, single, strict=True):
        torch.testing.assert_close(found[name], *one.values())
    with pytest.raises(LayerError, match=r"pick one of blocks.pattern\[0\], blocks.pattern\[1\]"):
        model.layer("blocks.pattern")


@pytest.mark.parametrize("fused", [True, False])
def test_gradients_flow_to_it_and_from_later_layers(images, fused):
    model = vit(lambda: Attention(fused))
    leaf = images.clone().requires_grad_()
    names = ["blocks.0.attn.pattern", "output"]
    with model.session():
        found = model.capture(leaf, names, model.layers())
    logit = found["output"][:, 2].sum()
    slope, to_image = torch.autograd.grad(logit, [found[names[0]], leaf])
    plain = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(plain)[:, 2].sum(), plain)
    torch.testing.assert_close(to_image, expected, rtol=1e-4, atol=1e-6)
    assert slope.shape == found[names[0]].shape
    assert slope.abs().sum() > 0


def test_its_slope_is_that_of_the_values():
    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.Identity()

        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x.exp()).flatten(1)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = One()

        def forward(self, x):
            return self.one(x)

    model = fv.Model(Net(), size=(4, 5), channels=2)
    x = torch.rand(1, 2, 4, 5, requires_grad=True)
    with model.session():
        found = model.capture(x, ["one.pattern", "output"], model.layers())
    (slope,) = torch.autograd.grad(found["output"].sum(), found["one.pattern"])
    expected = x.exp().sum(-1)[:, :, None].expand_as(slope)  # d (A V) summed / d A
    torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("heads", [2, 3])  # torch's fused kernel takes even numbers only
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_of_multi_head_attention(images, heads, need_weights, batch_first):
    class Torch(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(12, heads, 0.3, batch_first=batch_first)
            self.weights = nn.Identity()

        def forward(self, x):
            x = x if batch_first else x.transpose(0, 1)
            y, weights = self.inner(x, x, x, need_weights=need_weights)
            if need_weights:
                self.weights(weights)
            return y if batch_first else y.transpose(0, 1)

    model = vit(Torch)
    before = model(images)
    names = ["blocks.2.norm", "blocks.2.attn.inner.pattern", "output"]
    names += ["blocks.2.attn.weights"] * need_weights
    found = model.activations(images, names)
    inner = model.net.blocks[2].attn.inner
    x = found["blocks.2.norm"]
    qkv = F.linear(x, inner.in_proj_weight, inner.in_proj_bias).chunk(3, -1)
    q, k, _ = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in qkv)
    torch.testing.assert_close(found[names[1]], by_hand(q, k), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["output"], before, rtol=1e-4, atol=1e-5)
    if need_weights:
        mean = found[names[1]].mean(1)
        torch.testing.assert_close(found["blocks.2.attn.weights"], mean)
    alone = model.activations(images, names[1])  # without gradients, and to its end only
    torch.testing.assert_close(alone[names[1]], found[names[1]])


def test_of_torchs_own_encoder_layer_with_its_fast_path(images):
    layer = lambda: nn.TransformerEncoderLayer(12, 2, 24, batch_first=True)  # noqa: E731
    model = fv.Model(nets.seeded(lambda: Vit(layer)).eval(), size=(16, 24))
    with torch.no_grad():
        before = model(images)
        found = model.activations(images, ["blocks.0.attn.pattern", "blocks.0.norm", "output"])
    inner = model.net.blocks[0].attn.self_attn
    qkv = F.linear(found["blocks.0.norm"], inner.in_proj_weight, inner.in_proj_bias)
    q, k, _ = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in qkv.chunk(3, -1))
    torch.testing.assert_close(found["blocks.0.attn.pattern"], by_hand(q, k), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["output"], before, rtol=1e-4, atol=1e-5)


TOKENS = 25
CAUSAL = torch.full((TOKENS, TOKENS), -math.inf).triu(1)
BIAS = torch.linspace(-2, 2, TOKENS * TOKENS).sin().view(TOKENS, TOKENS)


@pytest.mark.parametrize(
    ("options", "mask", "scale"),
    [
        ({}, 0.0, None),
        ({"is_causal": True}, CAUSAL, None),
        ({"attn_mask": CAUSAL == 0}, CAUSAL, None),
        ({"attn_mask": BIAS}, BIAS, None),
        ({"scale": 0.7}, 0.0, 0.7),
        ({"attn_mask": BIAS, "scale": 1.3, "dropout_p": 0.0}, BIAS, 1.3),
        ({"enable_gqa": True}, 0.0, None),
    ],
)
def test_masks_and_scale_of_fused_attention(images, options, mask, scale):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(12, 12), nn.Linear(12, 12)

        def forward(self, x):
            q, k = (t.unflatten(-1, (4, 3)).transpose(1, 2) for t in (self.q(x), self.k(x)))
            if "enable_gqa" in options:
                k = k[:, :2]
            x = F.scaled_dot_product_attention(q, k, k, **options)
            return x.transpose(1, 2).flatten(2)

    model = vit(Masked)
    names = [f"blocks.1.attn{end}" for end in (".q", ".k", ".pattern", "")]
    found = list(model.activations(images, names).values())
    q, k = (t.unflatten(-1, (4, 3)).transpose(1, 2) for t in found[:2])
    if "enable_gqa" in options:
        k = k[:, [0, 0, 1, 1]]
    torch.testing.assert_close(found[2], by_hand(q, k, mask, scale), rtol=1e-4, atol=1e-5)
    plain = model.activations(images, names[3])[names[3]]
    torch.testing.assert_close(found[3], plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("need_weights", [True, False])
def test_masks_of_multi_head_attention(images, need_weights):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(12, 2, batch_first=True, add_zero_attn=True)

        def forward(self, x):
            padded = torch.zeros(len(x), TOKENS, dtype=torch.bool)
            padded[:, -3:] = True
            return self.inner(
                x, x, x, attn_mask=CAUSAL < 0, key_padding_mask=padded, need_weights=need_weights
            )[0]

    model = vit(Masked)
    before = model(images)
    found = model.activations(images, ["blocks.0.attn.pattern", "output"])
    pattern = found["blocks.0.attn.pattern"]
    assert pattern.shape == (2, 2, TOKENS, TOKENS + 1)
    torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 2, TOKENS))
    assert not pattern[..., :-1].triu(1).any()
    assert not pattern[..., -4:-1].any()
    torch.testing.assert_close(found["output"], before, rtol=1e-4, atol=1e-5)


def test_rows_that_may_look_nowhere_are_zero_with_finite_gradients():
    x = torch.rand(1, 2, 3, 4, requires_grad=True)
    mask = torch.tensor([True, False, True])[:, None].expand(3, 3)
    pattern = attention_pattern(x, x, mask)
    assert not pattern[:, :, 1].any()
    assert torch.autograd.grad((pattern @ x).sum(), x)[0].isfinite().all()
    plain = F.scaled_dot_product_attention(x, x, x, mask)
    torch.testing.assert_close(pattern @ x, plain)


@pytest.mark.parametrize("fused", [True, False])
def test_a_traced_pass_has_it_too(images, fused):
    model = vit(lambda: Attention(fused))
    names = ["blocks.1.attn.pattern", "blocks.0.attn.pattern", "blocks.1"]
    passes = [ForwardPass(model, model.size, traced=t) for t in (True, False)]
    with model.session(), warnings.catch_warnings():
        warnings.simplefilter("error")  # no "cannot be traced"
        traced, plain = (p.activations(images, names) for p in passes)
    for name in names:
        torch.testing.assert_close(traced[name], plain[name], rtol=1e-4, atol=1e-6)
    assert passes[0].traces.passes
    assert all(p is not None for p in passes[0].traces.passes.values())


def test_a_render_raises_what_the_class_token_sees_of_a_patch():
    model = vit(lambda: Attention(True))
    goal = fv.neuron("blocks.0.attn.pattern", 1, 0, 7)  # head, query, key
    made = fv.render(model, goal, steps=40)  # traced
    grey = goal(model, torch.full((1, 3, 16, 24), 0.5))
    pattern = model.activations(made.images, "blocks.0.attn.pattern")["blocks.0.attn.pattern"]
    torch.testing.assert_close(made.scores, pattern[:, 1, 0, 7], rtol=0.2, atol=0.02)
    assert made.scores[0] > 1.5 * grey[0]
    assert fv.render(model, "channel:blocks.1.attn.pattern:2", steps=2).scores.isfinite().all()
    assert fv.render(model, "layer:blocks.1.attn.pattern", steps=2).scores.isfinite().all()


def test_attribution_of_a_head(images):
    model = vit(lambda: Attention(True))
    goal = "neuron:blocks.1.attn.pattern:1:0:7"
    found = fv.attribute(model, images[:1], goal, method="saliency").attributions
    leaf = images[:1].clone().requires_grad_()
    pattern = model.activations(leaf, "blocks.1.attn.pattern")["blocks.1.attn.pattern"]
    (slope,) = torch.autograd.grad(pattern[0, 1, 0, 7], leaf)
    assert F.cosine_similarity(found.abs().sum(1).flatten(), slope.abs().sum(1).flatten(), 0) > 0.99


def by_einsum(q, k):
    return torch.einsum("bhid,bhjd->bhij", q, k).mul(0.5).softmax(dim=-1)


def by_bias(q, k):
    """Swin's bias and mask, and transformers' softmax in another precision."""
    scores = q / 2 @ k.mT + torch.zeros(TOKENS, TOKENS)
    scores = scores.view(-1, 1, 4, TOKENS, TOKENS) + torch.zeros(1, 1, TOKENS, TOKENS)
    scores = scores.view(-1, 4, TOKENS, TOKENS).masked_fill(torch.zeros(1).bool(), -math.inf)
    return F.softmax(scores, dim=3, dtype=torch.float64).to(q.dtype)


def by_module(q, k):
    """A module of its own, and dropout; in place, which must not reach what is returned."""
    pattern = nn.Softmax(-1)(torch.matmul(q, k.transpose(-2, -1)).mul_(0.5))
    return F.dropout(pattern, 0.0).mul_(1.0)


@pytest.mark.parametrize("pattern", [by_einsum, by_bias, by_module])
def test_other_spellings_of_the_softmax(images, pattern):
    class Spelled(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(12, 16), nn.Linear(12, 16)
            self.out = nn.Linear(16, 12)

        def forward(self, x):
            q, k = (t.unflatten(-1, (4, 4)).transpose(1, 2) for t in (self.q(x), self.k(x)))
            return self.out((pattern(q, k) @ k).transpose(1, 2).flatten(2))

    model = vit(Spelled)
    names = [f"blocks.2.attn{end}" for end in (".q", ".k", ".pattern", "")]
    found = list(model.activations(images, names).values())
    q, k = (t.unflatten(-1, (4, 4)).transpose(1, 2) for t in found[:2])
    torch.testing.assert_close(found[2].float(), by_hand(q, k), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[3], model.activations(images, names[3])[names[3]])


def test_a_single_head_without_an_axis_has_one(images):
    class Single(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x)

    model = vit(Single)
    found = model.activations(images, ["blocks.0.norm", "blocks.0.attn.pattern", "output"])
    x = found["blocks.0.norm"][:, None]
    torch.testing.assert_close(found["blocks.0.attn.pattern"], by_hand(x, x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["output"], model(images), rtol=1e-4, atol=1e-6)


def test_heads_merged_with_the_batch_are_refused(images):
    class Merged(nn.Module):
        def forward(self, x):
            heads = x.unflatten(-1, (3, 4)).transpose(1, 2).flatten(0, 1)
            heads = (heads @ heads.mT).softmax(-1) @ heads
            return heads.unflatten(0, (-1, 3)).transpose(1, 2).flatten(2)

    with pytest.raises(LayerError, match="its first axis is not the batch"):
        vit(Merged).activations(images, "blocks.0.attn.pattern")


def test_modules_without_attention_are_answered(images):
    model = vit(lambda: Attention(True))
    with pytest.raises(LayerError, match=r"no softmax attention was seen in 'head'; name one that"):
        model.activations(images, "head.pattern")
    with pytest.raises(LayerError, match="nor anywhere in this network"):
        nets.tiny().layer("first.pattern")
    with pytest.raises(LayerError, match=r"did you mean 'blocks.2.attn.pattern'"):
        model.layer("blocks.3.attn.pattern")


def test_a_softmax_that_is_no_attention_is_no_pattern(images):
    class Gate(nn.Module):
        def forward(self, x):
            return x * x.softmax(-1)

    with pytest.raises(LayerError, match="no softmax attention was seen"):
        vit(Gate).activations(images, "blocks.0.attn.pattern")


def test_the_position_is_between_the_layers_inside():
    table = vit(lambda: Attention(False)).layers()
    name = "blocks.1.attn"
    assert table[table.position(f"{name}.pattern")].name == f"{name}.k_norm"
    assert [i.name for i in table if "pattern" in i.name] == []


def test_weights_hooks_and_modes_are_left_alone(images):
    model = vit(lambda: Attention(True))
    model.net.train()
    model.activations(images, "blocks.0.attn.pattern")
    assert all(m.training for m in model.net.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.net.modules())
    assert not torch.overrides._get_current_function_mode_stack()
