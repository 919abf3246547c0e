"""The two-alternative task for people: a page without a server, and the score of their answers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from featviz.errors import FeatvizError
from featviz.io import images as image_files
from featviz.io import sheets
from featviz.io.dataset import Dataset
from featviz.io.files import check_readable, make_folder, write_bytes
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives.text import objectives as as_objectives
from featviz.process_state import shielded
from featviz.recipes.human_choices_page import page_of
from featviz.recipes.two_alternatives import pictures_of, ranked_sides
from featviz.seeds import generator
from featviz.types import Tensor
from featviz.validation import positive_int, whole

#: 97.5 % of a standard normal are below.
_QUANTILE = 1.959964


@dataclasses.dataclass(frozen=True)
class Choices:
    """What people chose; one entry for each objective.

    Attributes
    ----------
    objectives
        Their texts.
    right, asked
        How many tasks were answered right, and how many were answered.
    """

    objectives: list[str]
    right: list[int]
    asked: list[int]

    @property
    def accuracy(self) -> list[float]:
        """The fraction of right answers; NaN without answers. 0.5 is chance."""
        pairs = zip(self.right, self.asked, strict=True)
        return [right / asked if asked else math.nan for right, asked in pairs]

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """Wilson's 95 % confidence interval of each accuracy."""
        return [_wilson(right, asked) for right, asked in zip(self.right, self.asked, strict=True)]


@shielded
def questionnaire(
    model: Model | str,
    images: Dataset,
    objective: Objective | str | Sequence[Objective | str],
    out: str | Path,
    *,
    pictures: Tensor | None = None,
    negative: Tensor | None = None,
    k: int = 9,
    tasks: int = 10,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Path:
    """Write a page on which people do the task of :func:`machine_interpretability`.

    On the left images that lower a unit are shown, on the right those that raise it, and between
    them two others, of which one has to be chosen that belongs to the right. The tasks of all units
    are in one random order. The folder ``page`` in ``out`` is to be handed out: its ``index.html``
    needs no network, and saves answers as a file, which :func:`choices` scores by the solution in
    ``key.json``. [Zimmermann2021]_.

    Parameters
    ----------
    model, images, objective
        As in :func:`machine_interpretability`.
    out
        A folder, which is made.
    pictures, negative
        (units, P, C, H, W) in [0, 1], both or none: explain by these instead of by examples.
    k, tasks
        Examples on each side, and tasks for each unit.
    seed
        Of the order of the tasks and of the sides.
    batch_size, progress
        As in :func:`featviz.examples`.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    FeatvizError
        If there are too few images, or the pictures do not fit.
    """
    model, goals = as_model(model, "questionnaire"), as_objectives(objective)
    positive_int("k", k)
    positive_int("tasks", tasks)
    random = generator(whole("seed", seed, 0, 2**63 - 1), "questionnaire")
    if (pictures is None) != (negative is None):
        raise FeatvizError("give both pictures and negative, or neither")
    pictures = pictures_of(model, pictures, len(goals), "pictures")
    negative = pictures_of(model, negative, len(goals), "negative")
    found, ranks = ranked_sides(
        model, images, goals, k, tasks, batch_size=batch_size, progress=progress
    )
    folder = make_folder(out)
    shown_folder = make_folder(folder / "page")
    written: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for unit, goal in enumerate(goals):
        tops, bottoms = found.images(unit, "top"), found.images(unit, "bottom")
        for rank in ranks:
            kept = [i for i in range(k + tasks) if i != rank]
            shown = [kept[round(i * (len(kept) - 1) / max(k - 1, 1))] for i in range(k)]
            up = pictures[unit] if pictures is not None else [tops[i] for i in shown]
            down = negative[unit] if negative is not None else [bottoms[i] for i in shown]
            right_first = bool(torch.randint(2, (), generator=random))
            pair = [tops[rank], bottoms[rank]] if right_first else [bottoms[rank], tops[rank]]
            names = [[_file(shown_folder, written, i) for i in some] for some in (down, pair, up)]
            rows.append({"objective": str(goal), "shown": names, "answer": 0 if right_first else 1})
    rows = [rows[i] for i in torch.randperm(len(rows), generator=random).tolist()]
    identity = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
    key = {
        "id": identity,
        "objectives": [row["objective"] for row in rows],
        "answers": [row["answer"] for row in rows],
    }
    write_bytes(folder / "key.json", json.dumps(key, ensure_ascii=False).encode())
    page = page_of(identity, [row["shown"] for row in rows])
    return write_bytes(shown_folder / "index.html", page.encode())


def choices(folder: str | Path, *answers: str | Path) -> Choices:
    """Return how well people did, from the files that the page saved.

    ``folder`` is that of :func:`questionnaire`, with ``key.json``.

    Raises
    ------
    FeatvizError
        If a file cannot be read, is not of this page, or holds no answers.
    """
    key = _json(Path(folder, "key.json"), {"id": str, "objectives": list, "answers": list})
    goals: list[str] = list(dict.fromkeys(key["objectives"]))
    right, asked = dict.fromkeys(goals, 0), dict.fromkeys(goals, 0)
    if not answers:
        raise FeatvizError("give the files of answers that the page saved")
    for path in answers:
        given = _json(path, {"id": str, "answers": list})
        if given["id"] != key["id"] or len(given["answers"]) != len(key["answers"]):
            raise FeatvizError(f"{path}: its answers are to another questionnaire than {folder}")
        rows = zip(key["objectives"], key["answers"], given["answers"], strict=True)
        for goal, wanted, chosen in rows:
            if chosen is None:
                continue
            if chosen not in (0, 1):
                raise FeatvizError(f"{path}: an answer is 0, 1 or null, not {chosen!r}")
            asked[goal] += 1
            right[goal] += chosen == wanted
    return Choices(goals, [right[g] for g in goals], [asked[g] for g in goals])


def _file(folder: Path, written: dict[str, str], image: Tensor) -> str:
    """Write an image once, under a name that does not tell what it is; return the name."""
    data = image_files.png_bytes(sheets.to_pil(image))
    digest = hashlib.sha256(data).hexdigest()
    if digest not in written:
        written[digest] = f"{digest[:16]}.png"
        write_bytes(folder / written[digest], data)
    return written[digest]


def _json(path: str | Path, expected: dict[str, type]) -> dict[str, Any]:
    try:
        content = json.loads(check_readable(path).read_text("utf-8"))
    except (ValueError, RecursionError):
        raise FeatvizError(f"{path} is not JSON") from None
    kinds = content if isinstance(content, dict) else {}
    for name, kind in expected.items():
        if not isinstance(kinds.get(name), kind):
            raise FeatvizError(f"{path} is no file of a questionnaire: it has no {name}")
    return kinds


def _wilson(right: int, asked: int) -> tuple[float, float]:
    if not asked:
        return 0.0, 1.0
    share, z = right / asked, _QUANTILE
    centre = (share + z * z / (2 * asked)) / (1 + z * z / asked)
    half = z / (1 + z * z / asked) * math.sqrt(share * (1 - share) / asked + (z / asked) ** 2 / 4)
    return centre - half, centre + half
