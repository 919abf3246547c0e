"""What the searches for texts share: which words may be used, how texts score, what is returned."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.networks import text_model
from featviz.networks.text_model import TextModel
from featviz.objectives import Objective
from featviz.objectives import objective as as_objective
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class FoundTexts:
    """Texts that excite a unit.

    Attributes
    ----------
    objective
        What they were found for, as text.
    texts
        The texts.
    scores
        (B,): the objective of each text, of real words.
    soft_scores
        (B,): that of the mixtures of words from which the texts were read; None after a search
        among real ones.
    nearest
        For each text and position, the most probable words and their probabilities, from the first;
        after a search, the one word.
    history
        (steps, B): the objective at each step.
    """

    objective: str
    texts: list[str]
    scores: Tensor
    soft_scores: Tensor | None
    nearest: list[list[list[tuple[str, float]]]]
    history: Tensor


def checked(model: TextModel, objective: Objective | str) -> Objective:
    """Return the objective; raise :class:`FeatvizError` unless it is of single texts of a model."""
    if not isinstance(model, TextModel):
        raise FeatvizError("texts need a model of words: fv.TextModel(net, 'embedding', words, 12)")
    if isinstance(objective, (list, tuple)):
        raise FeatvizError("a text has one objective: call it for each, or give several seeds")
    goal = as_objective(objective)
    if goal.relational:
        raise FeatvizError(f"{goal} compares samples: search a text by an objective of each")
    return goal


def allowed_words(
    model: TextModel,
    start: str | Sequence[str] | None,
    free: Sequence[int] | None,
    avoid: Sequence[str],
) -> Tensor:
    """Return which words may be where, (words, length), on the CPU."""
    words, length = len(model.words), model.length
    unknown = [word for word in avoid if word not in model.words]
    if isinstance(avoid, str) or unknown:
        raise FeatvizError(f"avoid must be a list of the network's words, not {avoid!r}")
    if free is not None and start is None:
        raise FeatvizError("free names the positions of a text that may change: give start, too")
    positions = range(length) if free is None else free
    if not len(positions) or any(p not in range(length) for p in positions):
        raise FeatvizError(f"free must be positions from 0 to {length - 1}, not {list(positions)}")
    allowed = torch.tensor([word not in avoid for word in model.words])[:, None].repeat(1, length)
    if int(allowed[:, 0].sum()) < 2:
        raise FeatvizError(f"avoid leaves {int(allowed[:, 0].sum())} of {words} words to choose")
    fixed = [p for p in range(length) if p not in positions]
    if fixed and start is not None:
        allowed[:, fixed] = model.encode(start)[0].bool().cpu()[:, fixed]
    return allowed


def one_hot(model: TextModel, tokens: Tensor) -> Tensor:
    """Return texts (B, words, length) of tokens (B, length), on the network's device."""
    return text_model.one_hot(tokens.to(model.device), len(model.words))


def scores_of(model: TextModel, goal: Objective, tokens: Tensor) -> Tensor:
    """Return the objective (B,) of texts of tokens (B, length), on the CPU."""
    with torch.no_grad():
        return goal(model, one_hot(model, tokens)).float().cpu()


def nearest_words(model: TextModel, text: Tensor, k: int) -> list[list[tuple[str, float]]]:
    """Return the most probable words of a text (words, length) at each position."""
    best = text.detach().topk(min(k, len(text)), 0)
    return [
        [(model.words[i], float(p)) for i, p in zip(*column, strict=True)]
        for column in zip(best.indices.T.tolist(), best.values.T.tolist(), strict=True)
    ]


__all__ = ["FoundTexts"]
