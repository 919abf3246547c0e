"""The result of ``fv.check``: the images of each objective, and the criteria applied to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from featviz.checks import sheet
from featviz.checks.sheet import SheetImage
from featviz.checks.verdicts import DOUBTFUL, NOT_MEASURED, OK, Criterion, plain, summarize
from featviz.errors import FeatvizError
from featviz.io import images as _images
from featviz.optim.base_result import BaseResult
from featviz.optim.result import slug
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class Check:
    """One objective: its image, the criteria applied to it, and the image's company.

    Attributes
    ----------
    objective
        Its text.
    seed
        The image's seed.
    score
        The image's score.
    criteria
        All criteria in the order of :data:`featviz.checks.verdicts.NAMES`.
    company
        The images shown together: ``picture`` (the image itself), ``seeds`` (those of other seeds),
        ``negative``, ``randomized``, and ``top`` and ``bottom`` of the dataset; images that were
        not made are missing.
    """

    objective: str
    seed: int
    score: float
    criteria: tuple[Criterion, ...]
    company: dict[str, tuple[SheetImage, ...]]

    @property
    def picture(self) -> Tensor:
        """The image (C, *size) in [0, 1]."""
        return self.company["picture"][0].image

    @property
    def verdict(self) -> str:
        """``doubtful`` if any criterion is, else ``ok``; ``not measured`` if nothing was."""
        verdicts = {c.verdict for c in self.criteria}
        return next(v for v in (DOUBTFUL, OK, NOT_MEASURED) if v in verdicts)

    @property
    def overall(self) -> str:
        """The verdicts in one line that claims no more than was measured."""
        return summarize(self.criteria)

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
        company = {
            name: [{"label": s.label, "value": plain(s.value), "source": s.source} for s in members]
            for name, members in self.company.items()
        }
        return {
            "objective": self.objective,
            "seed": self.seed,
            "score": plain(self.score),
            "verdict": self.verdict,
            "overall": self.overall,
            "criteria": {c.name: c.record for c in self.criteria},
            "company": company,
        }

    def sheet(self) -> Image.Image:
        """Draw the image in its company, with the verdicts beside it.

        Raises
        ------
        FeatvizError
            If the images are neither gray nor RGB.
        """
        lines = [self.objective, self.overall, *map(str, self.criteria)]
        return sheet.draw(self.company, lines)

    def _repr_png_(self) -> bytes:
        return _images.png_bytes(self.sheet())


@dataclasses.dataclass(frozen=True)
class Checks(BaseResult):
    """The result of :func:`featviz.check`: one :class:`Check` for each objective.

    Attributes
    ----------
    checks
        In the order of the objectives; fewer after Ctrl-C.
    settings
        The settings that the images were made with.
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
        """Draw the sheets of all checks below one another (or in several ``columns``)."""
        pages = [check.sheet() for check in self.checks]
        column_count = max(1, columns or 1)
        width, height = max(p.width for p in pages), max(p.height for p in pages)
        rows = -(-len(pages) // column_count)
        canvas = Image.new("RGB", (width * min(column_count, len(pages)), height * rows), "white")
        for index, page in enumerate(pages):
            canvas.paste(page, (index % column_count * width, index // column_count * height))
        return canvas

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
        """Write one sheet for each objective and return the files.

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
            target = path
            if len(self) > 1:
                name = f"{path.stem}.{slug(check.objective)}"
                duplicates = [w for w in written if w.stem == name or w.stem.startswith(f"{name}-")]
                name += f"-{len(duplicates) + 1}" if duplicates else ""
                target = path.with_name(name + path.suffix)
            record = dataclasses.replace(self, checks=(check,)).record
            written.append(_images.save(check.sheet(), target, record))
        return written

    def _repr_png_(self) -> bytes | None:
        return super()._repr_png_() if self.checks else None

    def __repr__(self) -> str:
        return str(self) or "Checks()"
