"""What a file says about the run that made it: the one place where such records are checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from featviz.errors import FeatvizError
from featviz.optim.settings import Settings
from featviz.seeds import expand
from featviz.validation import whole

#: Most images of one file, and most characters of a name in it.
_IMAGES, _NAME = 100_000, 1000


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """A rendering that a file describes, to be repeated.

    ``model`` is whatever name the file gives: load it with ``trust=False``. ``goal`` is the text of
    the whole batch, ``objectives`` those of the images, ``done`` the number of updates made.
    """

    model: str | None
    goal: str | None
    objectives: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: Settings
    done: int

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> StoredRun:
        """Return the run that a record describes.

        Raises
        ------
        FeatvizError
            If an entry is missing, of a wrong type or out of bounds.
        """
        settings = Settings.from_record(record)
        seeds, texts = record.get("seed"), record.get("objective")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise FeatvizError("its objective is damaged: it is not a list of texts")
        if not texts or len(texts) > _IMAGES:
            raise FeatvizError(f"its objective is damaged: {len(texts)} texts")
        seeds = seeds if isinstance(seeds, list) else [seeds]
        seeds = expand(seeds, len(texts))
        steps = settings.steps
        assert steps is not None
        return cls(
            model=_name(record, "model"),
            goal=_name(record, "goal", most=None),
            objectives=tuple(texts),
            seeds=tuple(seeds),
            settings=settings,
            done=whole("steps_done", record.get("steps_done", steps), 0, steps),
        )


def _name(record: Mapping[str, Any], key: str, most: int | None = _NAME) -> str | None:
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or (most is not None and len(value) > most):
        raise FeatvizError(f"its {key} is damaged: it is not a name")
    return value
