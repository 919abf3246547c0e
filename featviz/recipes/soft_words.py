"""Texts that excite a unit, optimized as probabilities of words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from featviz.networks.text_model import TextModel
from featviz.objectives import Objective
from featviz.optim.optimizers import adam
from featviz.param.tokens import Tokens
from featviz.process_state import shielded
from featviz.recipes.found_texts import (
    FoundTexts,
    allowed_words,
    checked,
    nearest_words,
    scores_of,
)
from featviz.rendering.api import render
from featviz.types import Seed
from featviz.validation import positive_int, real

#: The standard deviation of the logits that soft words start with: seeds differ, words hardly.
_SPREAD = 0.1


@shielded
def soft_text(
    model: TextModel,
    objective: Objective | str,
    *,
    seed: Seed = 0,
    start: str | Sequence[str] | None = None,
    free: Sequence[int] | None = None,
    avoid: Sequence[str] = (),
    steps: int = 200,
    lr: float = 0.3,
    temperature: float = 1.0,
    hard: bool = True,
    k: int = 3,
    **options: Any,
) -> FoundTexts:
    """Return texts that maximize an objective, optimized as probabilities of words.

    Parameters
    ----------
    model
        The network and its words.
    objective
        What to maximize.
    seed
        As in :func:`featviz.render`: several seeds give one text each.
    start, free
        A text, and the positions that may change (from 0, by default all); the others stay.
    avoid
        Words that may not be used, such as those of padding.
    steps, lr
        Updates by Adam, and its learning rate.
    temperature, hard
        Those of :class:`featviz.param.Tokens`. With ``hard`` the network sees real words at every
        step; without, mixtures, which may score higher than any text.
    k
        Words listed at each position.
    **options
        Others of :func:`featviz.render`.

    Raises
    ------
    FeatvizError
        For a model without words, or a word or position that it does not have.
    """
    goal = checked(model, objective)
    k = positive_int("k", k)
    allowed = allowed_words(model, start, free, avoid).float()
    param = Tokens(temperature=temperature, hard=hard).from_image(allowed[None] / allowed.sum(0))
    usual: dict[str, Any] = {"transforms": "none", "prior": 0.0, **options}
    optimizer = adam(real("lr", lr, 0, 1e6, above=True))
    param = dataclasses.replace(param, sd=_SPREAD)
    result = render(model, goal, seed=seed, param=param, steps=steps, optimizer=optimizer, **usual)
    tokens = result.images.argmax(1)
    mixtures = dataclasses.replace(param, hard=False).image(result.state).cpu()
    return FoundTexts(
        str(goal),
        model.decode(result.images),
        scores_of(model, goal, tokens),
        result.scores,
        [nearest_words(model, mixture, k) for mixture in mixtures],
        result.history,
    )


__all__ = ["soft_text"]
