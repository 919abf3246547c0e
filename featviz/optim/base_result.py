"""The base class of the results of all verbs."""

from __future__ import annotations

import abc
import base64
import html
import math
import operator
from pathlib import Path
from typing import Any

from PIL import Image

from featviz.io import images


class BaseResult(abc.ABC):
    """A result with a sheet that shows it and a record of how it was made.

    Attributes
    ----------
    objectives
        The text form of each objective.
    settings
        The requested settings, as JSON values.
    interrupted
        Whether Ctrl-C ended the run early, so that the result is partial.
    """

    objectives: list[str]
    settings: dict[str, Any]
    interrupted: bool

    @property
    @abc.abstractmethod
    def record(self) -> dict[str, Any]:
        """The settings and measurements as JSON values, which a saved PNG contains."""

    @abc.abstractmethod
    def sheet(self, *, columns: int | None = None) -> Image.Image:
        """Draw the result on one sheet.

        Raises
        ------
        FeatvizError
            If the images are neither gray nor RGB.
        """

    def save(self, path: str | Path) -> list[Path]:
        """Write the sheet and return the paths written; a PNG contains the record.

        Raises
        ------
        FeatvizError
            As :meth:`sheet`, or if the file cannot be written.
        """
        return [images.save(self.sheet(), path, self.record)]

    def pil(self, *, columns: int | None = None) -> Image.Image:
        """Return the sheet as a Pillow image; another name of :meth:`sheet`."""
        return self.sheet(columns=columns)

    def show(self) -> None:
        """Open the sheet in an image viewer. In a notebook, a result as last line shows itself."""
        self.sheet().show()

    def __repr__(self) -> str:
        texts = ", ".join(self.objectives[:3]) + (", …" if len(self.objectives) > 3 else "")
        ended = "; interrupted" if self.interrupted else ""
        return f"<{type(self).__name__}: {texts}{ended}>"

    def _repr_html_(self) -> str | None:
        png = self._repr_png_()
        if png is None:
            return None
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        caption = html.escape(repr(self)[1:-1])
        return f'<figure><img src="{source}"><figcaption>{caption}</figcaption></figure>'

    def _repr_png_(self) -> bytes | None:
        return images.png_bytes(self.sheet(), self.record)


def finite(values: list[float]) -> list[float | None]:
    """Return numbers for JSON, with None for those that are not finite."""
    return [value if math.isfinite(value) else None for value in values]


def row_of(index: int, count: int) -> int:
    """Return the row that an index means, negative ones from the end; raise IndexError if none."""
    i = operator.index(index)
    if not -count <= i < count:
        raise IndexError(f"no image {i}: the result has {count}, from 0 to {count - 1}")
    return i % count
