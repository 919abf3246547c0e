"""Words for units, by an encoder of images and text: CLIP-Dissect.

[Oikarinen2023]_
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from featviz.dataset_examples.forced_choice import embed
from featviz.errors import FeatvizError
from featviz.io.dataset import Dataset, ImageDataset
from featviz.io.dataset_batches import read_batches, warn_of_skipped
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.optim.batching import evaluated_together
from featviz.process_state import shielded
from featviz.resample import resize
from featviz.types import Tensor
from featviz.validation import positive_int, real

#: The probability that an image is an example of a unit, from its first to its last image.
FIRST, LAST = 0.998, 0.97


@dataclasses.dataclass(frozen=True)
class UnitWords:
    """The words that fit the units of a layer best.

    Attributes
    ----------
    layer
        The layer.
    units
        Which of its units.
    words
        For each unit, the best words, from the best.
    scores
        (units, k): their soft pointwise mutual information with the unit, in nats. Only
        differences mean something.
    images
        How many images were seen.
    """

    layer: str
    units: list[int]
    words: list[list[str]]
    scores: Tensor
    images: int


@shielded
def unit_words(
    model: Model | str,
    layer: str,
    images: Dataset,
    words: Sequence[str],
    *,
    encoder: Model,
    units: Sequence[int] | None = None,
    k: int = 5,
    top: int = 100,
    scale: float = 10.0,
    atlas: str | Path | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> UnitWords:
    """Return the words whose images are those that excite each unit.

    A unit's examples are the ``top`` images with the highest mean over positions. For an image x,
    p(t|x) is the softmax over the words of ``scale`` times the cosine of their embeddings; a word's
    score is the log probability of the examples under it, less that of all units' examples:
    Σ log(1 + p(x ∈ B)(p(t|x) − 1)) − log p(t), p(x ∈ B) falling from 0.998 to 0.97 over the
    examples. [Oikarinen2023]_, soft WPMI; log p(t) is over the examples of all units of the layer.
    A word must be among ``words`` to be found.

    Parameters
    ----------
    model, layer
        The network, and the layer of the units.
    images
        A folder or dataset, as in :func:`featviz.examples`; read once.
    words
        The candidates.
    encoder
        The image encoder, with the text encoder as ``text=``: see :func:`featviz.text_match`. Its
        output is the embedding.
    units
        Some of the layer's units; by default all.
    k
        Words returned for each unit.
    top
        Examples of each unit.
    scale
        The inverse temperature of the softmax; 10 in the paper's code.
    atlas
        The folder or URL of a channel atlas of this network, in whose table of the layer's units
        the words are stored, too; :func:`featviz.atlases.view` then writes pages that search them.
    batch_size, progress
        As in :func:`featviz.examples`.

    Raises
    ------
    FeatvizError
        If the encoder has no text encoder, embeddings do not fit, or there are too few images; if
        the atlas is of another network or does not have these units.
    """
    model, encoder = as_model(model, "unit_words"), as_model(encoder, "encoder")
    k, top = positive_int("k", k), positive_int("top", top)
    scale = real("scale", scale, 0, 1e6, above=True)
    texts = _texts_of(encoder, words)
    info = model.layer(layer)
    if units is not None and not len(units):
        raise FeatvizError("units: name at least one")
    chosen = list(range(info.units)) if units is None else [_unit(u, info.units) for u in units]
    columns = None
    if atlas is not None:
        from featviz.atlases.word_columns import WordColumns  # an atlas needs pyarrow

        columns = WordColumns(atlas, model, info.name, units)
    dataset = ImageDataset(images, model.crop)
    skipped: dict[str, str] = {}
    activations, likeness, seen = [], [], 0
    batches = read_batches(
        dataset, model.channels, model.size, evaluated_together(model.device, batch_size),
        skipped=skipped, progress=progress,
    )  # fmt: skip
    for batch in batches:
        shown = torch.stack([image for _, image in batch.values()])
        seen += len(shown)
        activations.append(embed(model, shown, layer))
        with torch.no_grad():
            fitted = resize(shown, encoder.size, antialias=True).clamp(0, 1)
            embedded = encoder(fitted.to(encoder.device)).float().cpu()
        if embedded.shape[1:] != texts.shape[1:]:
            raise FeatvizError(
                f"the encoder gives images {tuple(embedded.shape[1:])} numbers and texts "
                f"{texts.shape[1]}"
            )
        likeness.append(F.normalize(embedded, dim=1) @ texts.T)
    warn_of_skipped(skipped, seen)
    if seen <= top:
        raise FeatvizError(f"{seen} images: {top} examples of each unit are no selection of them")
    probabilities = (scale * torch.cat(likeness)).softmax(1)
    scores = soft_wpmi(probabilities, torch.cat(activations), top)[chosen]
    best = scores.topk(min(k, len(words)), 1)
    names = [[words[i] for i in row] for row in best.indices.tolist()]
    if columns is not None:
        columns.write(chosen, names, best.values)
    return UnitWords(layer, chosen, names, best.values, seen)


def soft_wpmi(probabilities: Tensor, activations: Tensor, top: int) -> Tensor:
    """Return the soft pointwise mutual information (units, words). [Oikarinen2023]_, eq. 5-7.

    ``probabilities`` (N, words) are p(t|x), ``activations`` (N, units).
    """
    examples = activations.topk(top, 0).indices  # (top, units)
    weights = FIRST - torch.arange(top) / top * (FIRST - LAST)
    given = torch.stack(
        [
            torch.log1p(weights[:, None] * (probabilities[examples[:, unit]] - 1)).sum(0)
            for unit in range(activations.shape[1])
        ]
    )
    prior = given.logsumexp(0) - math.log(len(given))
    return given - prior


def _texts_of(encoder: Model, words: Sequence[str]) -> Tensor:
    """Return the unit embeddings (words, D) of texts."""
    if encoder.text is None:
        raise FeatvizError("encoder has no text encoder: fv.Model(encode_image, text=encode_text)")
    if isinstance(words, str) or not words or not all(isinstance(w, str) for w in words):
        raise FeatvizError("words must be a list of texts")
    with torch.no_grad():
        rows = [torch.as_tensor(encoder.text(w)).float().cpu().flatten() for w in words]
    if len({len(row) for row in rows}) != 1:
        raise FeatvizError("the text encoder returns vectors of several lengths")
    return F.normalize(torch.stack(rows), dim=1)


def _unit(unit: int, count: int) -> int:
    if isinstance(unit, bool) or not isinstance(unit, int) or not 0 <= unit < count:
        raise FeatvizError(f"no unit {unit!r}: the layer has 0 to {count - 1}")
    return unit
