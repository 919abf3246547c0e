"""Image networks on the Hugging Face hub or in a local folder, through transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from featviz.errors import ModelError
from featviz.networks.model import Model
from featviz.networks.zoo._need import build, need, problem
from featviz.networks.zoo._weights import hub, random_weights
from featviz.networks.zoo.records import declared
from featviz.types import Tensor

DESCRIPTION = "image networks on the Hugging Face hub or in a folder, through transformers"
INSTALL = "pip install transformers"


def unavailable() -> str:
    """Return why networks of transformers cannot be loaded here; empty if they can."""
    return problem("transformers", INSTALL)


def load(name: str, weights: str | None, options: dict[str, Any]) -> Model:
    """Return the network ``name`` (``google/vit-base-patch16-224``, ``./folder``, …).

    Image classifiers have their class names; networks without a classifier are loaded without, and
    CLIP and its like as an image tower with ``text_match``. Preprocessing is that of the processor,
    with every field (rescaling, offsets, normalization, BGR): it is measured, and checked on a
    random image. ``weights`` is ``default``, a revision, or None, which reads the configuration
    only.

    Raises
    ------
    ModelError
        If it cannot be loaded, or its preprocessing cannot be matched.
    """
    what = f"hf:{name}"
    library = need("transformers", INSTALL, f"model {what!r}")
    local: dict[str, Any] = {"local_files_only": True} if Path(name).is_dir() else {}
    if weights not in (None, "default"):
        local["revision"] = weights
    with hub():
        config = build(lambda: library.AutoConfig.from_pretrained(name, **local, **options), what)
        processor = build(lambda: library.AutoImageProcessor.from_pretrained(name, **local), what)
        pair = hasattr(config, "text_config") and hasattr(config, "vision_config")
        kinds = (
            [library.AutoModel]
            if pair
            else [
                library.AutoModelForImageClassification,
                library.AutoModel,
            ]
        )
        net = None
        for kind in kinds:
            net = _network(kind, name, config, weights, local)
            if net is not None:
                break
        if net is None:
            raise ModelError(f"cannot load model {what!r}: its weights do not fit a known network")
        net = net.eval()
        if pair:
            tokenizer = build(lambda: library.AutoTokenizer.from_pretrained(name, **local), what)
            return _with_text(net, tokenizer, processor)
    return Model(net, **declared(net, processor))


def _network(
    kind: Any, name: str, config: Any, weights: str | None, local: dict[str, Any]
) -> nn.Module | None:
    """Return a network with all its weights; None if some are missing, such as a classifier's."""
    if weights is None:
        with random_weights():
            try:
                return kind.from_config(config)
            except ValueError:  # not of this kind
                return None
    try:
        net, info = kind.from_pretrained(name, config=config, output_loading_info=True, **local)
    except ValueError:
        return None
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"cannot load model 'hf:{name}': {reason}") from error
    return None if info.get("missing_keys") else net


def _with_text(net: Any, tokenizer: Any, processor: Any) -> Model:
    """Return the image tower of a pair of encoders, whose embeddings texts are compared with."""

    def embed(text: str) -> Tensor:
        tokens = tokenizer([text], return_tensors="pt", padding="max_length", truncation=True)
        with torch.no_grad():
            return _embedding(net.get_text_features(**tokens))[0]

    def call(net: Any, images: Tensor) -> Tensor:
        return _embedding(net.get_image_features(pixel_values=images))

    return Model(net, call=call, text=embed, **declared(net, processor))


def _embedding(output: Any) -> Tensor:
    """Return the embedding, which some versions wrap."""
    tensor: Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return tensor
