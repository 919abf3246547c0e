"""What the results of all verbs have in common."""

from __future__ import annotations

import abc
import math
from pathlib import Path
from typing import Any

from PIL import Image

from featviz.io import images


class BaseResult(abc.ABC):
    """A result with a sheet that shows it, and a record that says how it came about.

    Attributes
    ----------
    objectives
        The text of each objective.
    settings
        What was asked for, in JSON's words.
    interrupted
        Whether Ctrl-C ended the run early; then there is less than was asked for.
    """

    objectives: list[str]
    settings: dict[str, Any]
    interrupted: bool

    @property
    @abc.abstractmethod
    def record(self) -> dict[str, Any]:
        """The settings and what was measured, for JSON; a saved PNG carries it."""

    @abc.abstractmethod
    def sheet(self, *, columns: int | None = None) -> Image.Image:
        """Draw the result on one page.

        Raises
        ------
        FeatvizError
            If it holds no gray or RGB pictures.
        """

    def save(self, path: str | Path) -> list[Path]:
        """Write the sheet, and return the files written; a PNG carries the record.

        Raises
        ------
        FeatvizError
            As :meth:`sheet`, or if the file cannot be written.
        """
        return [images.save(self.sheet(), path, self.record)]

    def _repr_png_(self) -> bytes | None:
        return images.png_bytes(self.sheet(), self.record)


def finite(values: list[float]) -> list[float | None]:
    """Return numbers for JSON: those that are not finite are None."""
    return [value if math.isfinite(value) else None for value in values]
