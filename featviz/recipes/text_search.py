"""Texts that excite a unit, by search among real texts: greedy coordinate gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.networks.text_model import TextModel
from featviz.objectives import Objective
from featviz.optim.gradient_evaluator import GradientEvaluator
from featviz.process_state import shielded
from featviz.recipes.found_texts import (
    FoundTexts,
    allowed_words,
    checked,
    nearest_words,
    one_hot,
    scores_of,
)
from featviz.seeds import expand, generator
from featviz.types import Seed, Tensor
from featviz.validation import positive_int


@shielded
def search_text(
    model: TextModel,
    objective: Objective | str,
    *,
    seed: Seed = 0,
    start: str | Sequence[str] | None = None,
    free: Sequence[int] | None = None,
    avoid: Sequence[str] = (),
    steps: int = 50,
    candidates: int = 64,
    k: int = 16,
) -> FoundTexts:
    """Return texts that maximize an objective, by search among real texts.

    Greedy coordinate gradient, [Zou2023]_, algorithm 1: of the ``k`` words with the largest
    gradient at each position, ``candidates`` exchanges of one word are drawn and evaluated, and the
    search goes on from the best of them, even if it is worse than before. The text returned is the
    best that was seen. The gradient by a one-hot word is the first-order estimate of an exchange of
    [Ebrahimi2018]_.

    Parameters
    ----------
    model, objective
        The network and its words, and what to maximize.
    seed
        Several seeds give one text each.
    start, free, avoid
        As in :func:`soft_text`; without ``start``, random words.
    steps
        Exchanges.
    candidates
        Texts evaluated at each step; the network sees them in one batch.
    k
        Words that an exchange chooses from, at each position.

    Raises
    ------
    FeatvizError
        For a model without words, a word or position that it does not have, or an objective that
        compares samples.
    """
    goal = checked(model, objective)
    steps, candidates = positive_int("steps", steps), positive_int("candidates", candidates)
    k = positive_int("k", k)
    allowed = allowed_words(model, start, free, avoid)
    seeds = expand(seed, len(seed) if isinstance(seed, (list, tuple, range)) else 1)
    first = None if start is None else model.encode(start).argmax(1)[0].cpu()
    evaluator = GradientEvaluator(model, goal, model.size, channels=model.channels, batch=1)
    best, history = [], []
    with model.session():
        for one in seeds:
            rng = generator(one, "text")
            tokens = torch.rand(allowed.shape, generator=rng).where(allowed, -1.0).argmax(0)
            if first is not None:
                tokens = torch.where(allowed.gather(0, first[None])[0], first, tokens)
            texts, scores = [tokens], [float(scores_of(model, goal, tokens[None]))]
            for _ in range(steps):
                slopes = _slopes(evaluator, one_hot(model, texts[-1][None]))
                others = _exchanges(
                    texts[-1], slopes.where(allowed, -torch.inf), candidates, k, rng
                )
                values = scores_of(model, goal, others)
                texts.append(others[values.argmax()])
                scores.append(float(values.max()))
            best.append(texts[scores.index(max(scores))])
            history.append(torch.tensor(scores[1:]))
    rows = torch.stack(best)
    chosen = one_hot(model, rows)
    return FoundTexts(
        str(goal),
        model.decode(chosen),
        scores_of(model, goal, rows),
        None,
        [nearest_words(model, text, 1) for text in chosen.cpu()],
        torch.stack(history, 1),
    )


def _exchanges(tokens: Tensor, slopes: Tensor, count: int, k: int, rng: torch.Generator) -> Tensor:
    """Return ``count`` texts (count, length) that differ from ``tokens`` (length,) by one word.

    Positions are drawn uniformly, words among the ``k`` with the largest ``slopes`` (words, length)
    there; those with infinite ones may not be used.
    """
    slopes = slopes.scatter(0, tokens[None], -torch.inf)  # an exchange is by another word
    usable = slopes.isfinite().sum(0).clamp_max(k)
    movable = usable.nonzero()[:, 0]
    if not len(movable):
        raise FeatvizError("the objective has no finite gradient by the words of this text")
    at = movable[torch.randint(len(movable), (count,), generator=rng)]
    rank = (torch.rand(count, generator=rng) * usable[at]).long()
    texts = tokens.repeat(count, 1)
    texts[torch.arange(count), at] = slopes.argsort(0, descending=True)[rank, at]
    return texts


def _slopes(evaluator: GradientEvaluator, texts: Tensor) -> Tensor:
    """Return the gradient of the objective by each word of texts (1, words, length), on the CPU."""
    with torch.enable_grad():
        found = evaluator.gradients(texts, texts, torch.ones((), device=texts.device))
    parts = [slopes for slopes in (found.by_images, found.by_seen) if slopes is not None]
    return torch.stack(parts).sum(0)[0].float().cpu()


__all__ = ["search_text"]
