"""Image towers of open_clip, with their text encoder for ``text_match``."""

from __future__ import annotations

from typing import Any

import torch

from featviz.errors import ModelError, did_you_mean
from featviz.networks.model import Model
from featviz.networks.zoo._need import build, need, problem
from featviz.networks.zoo._weights import hub, random_weights
from featviz.networks.zoo.records import declared
from featviz.types import Tensor

DESCRIPTION = "image towers of open_clip, with text_match"
INSTALL = "pip install open_clip_torch"


def unavailable() -> str:
    """Return why networks of open_clip cannot be loaded here; empty if they can."""
    return problem("open_clip", INSTALL)


def load(name: str, weights: str | None, options: dict[str, Any]) -> Model:
    """Return the image tower of open_clip's ``name`` (``ViT-B-32``, ``RN50``, …).

    ``weights`` is a tag (``openai``, ``laion2b_s34b_b79k``), ``default`` for the first that
    open_clip lists, or None.
    """
    library = need("open_clip", INSTALL, f"model 'open_clip:{name}'")
    known = library.list_models()
    if name not in known:
        raise ModelError(f"open_clip has no model {name!r}{did_you_mean(name, known)}")
    tags = library.list_pretrained_tags_by_model(name)
    tag = (tags[0] if tags else None) if weights == "default" else weights
    if weights is not None and tag not in tags:
        raise ModelError(f"{name} has no weights {weights!r}; known: {', '.join(tags) or 'none'}")
    if tag is None:
        with random_weights():
            net = build(
                lambda: library.create_model(name, pretrained=None, **options), f"open_clip:{name}"
            )
    else:
        with hub():
            net = build(
                lambda: library.create_model(name, pretrained=tag, **options),
                f"open_clip:{name}",
            )
    net = net.eval()
    tokenizer = library.get_tokenizer(name)

    def embed(text: str) -> Tensor:
        with torch.no_grad():
            return net.encode_text(tokenizer([text]))[0]

    return Model(net.visual, text=embed, **declared(net))
