"""The match of an image with a text, by an encoder of each."""

from __future__ import annotations

import dataclasses

import torch

from featviz.errors import UnitError
from featviz.objectives.base import Objective
from featviz.objectives.directions import dot_and_cosine
from featviz.objectives.scene import Scene, Score, Target
from featviz.objectives.unit import Unit, quoted, word
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True, repr=False)
class TextMatch(Unit):
    """See :func:`text_match`."""

    kind = "text_match"
    text: str = quoted()
    layer: str = word("output")

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        if target.model.text is None:
            raise UnitError("the model has no text encoder: use fv.Model(…, text=encoder)")
        embedding = torch.as_tensor(target.model.text(self.text)).detach().float().flatten()
        if info.positions or len(embedding) != info.units:
            shape = "x".join(map(str, info.shape))
            raise UnitError(
                f"the text embedding has {len(embedding)} features, but layer {info.name!r} has "
                f"{shape}"
            )
        embedding = embedding.to(target.device)

        def score(scene: Scene) -> Tensor:
            return dot_and_cosine(scene[self.layer], embedding)[1]

        return score


def text_match(text: str, *, layer: str = "output") -> Objective:
    """Return the cosine similarity between the embeddings of the image and a text, as in CLIP.

    The model is the image encoder, and its ``text`` argument the text encoder:
    ``fv.Model(encode_image, text=encode_text)``, a function that maps a text to one vector (D,).
    [Radford2021]_
    """
    return TextMatch(text, layer)
