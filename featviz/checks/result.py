"""What ``fv.check`` returns: for each objective its images and what is to be said of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from featviz.checks import sheet as board
from featviz.checks.sheet import Shown
from featviz.checks.verdicts import DOUBTFUL, NOT_MEASURED, OK, Criterion, overall, plain
from featviz.errors import FeatvizError
from featviz.io import images as _images
from featviz.optim.base_result import BaseResult
from featviz.optim.result import slug
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class Check:
    """One objective: what each criterion says of its image, and the image's company.

    Attributes
    ----------
    objective
        Its text.
    seed
        The image's seed.
    score
        The image's value.
    criteria
        All criteria in the order of :data:`featviz.checks.verdicts.NAMES`.
    company
        What is shown beside the image: ``picture``, ``seeds`` (the other ones), ``negative``,
        ``randomized``, ``top`` and ``bottom`` (images); what was not made is missing.
    """

    objective: str
    seed: int
    score: float
    criteria: tuple[Criterion, ...]
    company: dict[str, tuple[Shown, ...]]

    @property
    def picture(self) -> Tensor:
        """The image (C, *size) in [0, 1]."""
        return self.company["picture"][0].image

    @property
    def verdict(self) -> str:
        """``doubtful`` if any criterion is, else ``ok``; ``not measured`` if nothing was."""
        found = {c.verdict for c in self.criteria}
        return next(v for v in (DOUBTFUL, OK, NOT_MEASURED) if v in found)

    @property
    def overall(self) -> str:
        """One line that claims no more than was measured."""
        return overall(self.criteria)

    def __getitem__(self, name: str) -> Criterion:
        """Return a criterion by name; raise :class:`FeatvizError` if there is none."""
        for criterion in self.criteria:
            if criterion.name == name:
                return criterion
        known = ", ".join(c.name for c in self.criteria)
        raise FeatvizError(f"no criterion {name!r}; known: {known}")

    def __str__(self) -> str:
        return "\n  ".join([f"{self.objective}: {self.overall}", *map(str, self.criteria)])

    @property
    def record(self) -> dict[str, Any]:
        """Everything but the images, for JSON."""
        shown = {
            row: [{"label": s.label, "value": plain(s.value), "source": s.source} for s in members]
            for row, members in self.company.items()
        }
        return {
            "objective": self.objective,
            "seed": self.seed,
            "score": plain(self.score),
            "verdict": self.verdict,
            "overall": self.overall,
            "criteria": {c.name: c.record for c in self.criteria},
            "company": shown,
        }

    def sheet(self) -> Image.Image:
        """Draw the image in its company, with what the criteria say beside.

        Raises
        ------
        FeatvizError
            If the images are no gray or RGB images.
        """
        lines = [self.objective, self.overall, *map(str, self.criteria)]
        return board.draw(self.company, lines)

    def _repr_png_(self) -> bytes:
        return _images.png_bytes(self.sheet())


@dataclasses.dataclass(frozen=True)
class Checks(BaseResult):
    """What :func:`featviz.check` found, one :class:`Check` for each objective.

    Attributes
    ----------
    checks
        In the order of the objectives; fewer after Ctrl-C.
    settings
        What the images were made with.
    interrupted
        Whether Ctrl-C ended the run early.
    """

    checks: tuple[Check, ...]
    settings: dict[str, Any]
    interrupted: bool = False

    def __len__(self) -> int:
        return len(self.checks)

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def __getitem__(self, index: int) -> Check:
        return self.checks[index]

    def __str__(self) -> str:
        return "\n".join(map(str, self.checks))

    @property
    def objectives(self) -> list[str]:  # type: ignore[override]
        """The text of each objective."""
        return [check.objective for check in self.checks]

    def sheet(self, *, columns: int | None = None) -> Image.Image:
        """Draw the sheets of all checks, one below the other (or in several ``columns``)."""
        pages = [check.sheet() for check in self.checks]
        wide = max(1, columns or 1)
        width, height = max(p.width for p in pages), max(p.height for p in pages)
        rows = -(-len(pages) // wide)
        whole = Image.new("RGB", (width * min(wide, len(pages)), height * rows), "white")
        for index, page in enumerate(pages):
            whole.paste(page, (index % wide * width, index // wide * height))
        return whole

    @property
    def record(self) -> dict[str, Any]:
        """The settings and the record of each check, for JSON."""
        return {
            **self.settings,
            "interrupted": self.interrupted,
            "objective": self.objectives,
            "checks": [c.record for c in self.checks],
        }

    def save(self, path: str | Path) -> list[Path]:
        """Write the sheet; of several objectives one each, named after it; return the files.

        A PNG carries its record. With several objectives ``out.png`` becomes
        ``out.channel-_blocks.10-5.png`` and so on.

        Raises
        ------
        FeatvizError
            As :meth:`Check.sheet`, or if a file cannot be written.
        """
        path = _images.check_output(path)
        written: list[Path] = []
        for check in self.checks:
            place = path
            if len(self) > 1:
                name = f"{path.stem}.{slug(check.objective)}"
                twins = [w for w in written if w.stem == name or w.stem.startswith(f"{name}-")]
                name += f"-{len(twins) + 1}" if twins else ""
                place = path.with_name(name + path.suffix)
            record = dataclasses.replace(self, checks=(check,)).record
            written.append(_images.save(check.sheet(), place, record))
        return written

    def _repr_png_(self) -> bytes | None:
        return super()._repr_png_() if self.checks else None

    def __repr__(self) -> str:
        return str(self) or "Checks()"
