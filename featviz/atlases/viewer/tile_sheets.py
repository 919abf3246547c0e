"""Sprite sheets: many thumbnails in a few WebP files."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageOps

from featviz.errors import FeatvizError

TILE = 112
#: A sheet is decoded completely before its first tile is shown: 32 × 16 tiles have 6.4 million
#: pixels, and a layer of 1,000 units has two sheets. Some phones are limited to 16 million pixels,
#: WebP to 16383 per side.
COLUMNS, ROWS = 32, 16
QUALITY = 85
_MODES = ("RGB", "RGBA")


class Sheets:
    """Arranges ``count`` tiles in sheets, each of which is returned as soon as it is complete.

    Tile i is in sheet ``i // per``, at row and column ``divmod(i % per, columns)``.
    """

    def __init__(
        self, count: int, tile: int = TILE, columns: int = COLUMNS, rows: int = ROWS
    ) -> None:
        self.count, self.tile = count, tile
        self.columns = max(1, min(columns, count))
        self.per = self.columns * rows
        self._pages: dict[int, Image.Image] = {}
        self._missing = [min(self.per, count - k) for k in range(0, count, self.per)]
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._missing)

    def rows(self, sheet: int) -> int:
        """Return the number of rows of a sheet."""
        return -(-min(self.per, self.count - sheet * self.per) // self.columns)

    def layout(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the layout that the pages need to find a tile."""
        rows = [self.rows(k) for k in range(len(self))]
        return {"columns": self.columns, "per": self.per, "rows": rows, "files": list(names)}

    def place(self, index: int, tile: Image.Image | None) -> tuple[int, Image.Image] | None:
        """Place a tile from :func:`fit`; None leaves its position empty.

        Return the number and the image of the sheet if this was its last missing tile.
        """
        sheet, position = divmod(index, self.per)
        row, column = divmod(position, self.columns)
        with self._lock:
            if tile is not None:
                self._page(sheet, tile.mode).paste(tile, (column * self.tile, row * self.tile))
            self._missing[sheet] -= 1
            if self._missing[sheet]:
                return None
            return sheet, self._pages.pop(sheet, None) or self._blank(sheet, "RGB")

    def _page(self, sheet: int, mode: str) -> Image.Image:
        page = self._pages.get(sheet)
        if page is None:
            page = self._blank(sheet, mode)
        elif mode == "RGBA" != page.mode:
            page = page.convert("RGBA")
        self._pages[sheet] = page
        return page

    def _blank(self, sheet: int, mode: str) -> Image.Image:
        return Image.new(mode, (self.columns * self.tile, self.rows(sheet) * self.tile))


def fit(content: bytes, tile: int = TILE) -> tuple[Image.Image, tuple[int, int]]:
    """Decode an image; return it scaled to fit into a tile, and its original size.

    Raises
    ------
    FeatvizError
        If it cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            size = image.size
            has_alpha = "A" in image.getbands() or "transparency" in image.info
            image.draft("RGB", (2 * tile, 2 * tile))
            small = ImageOps.contain(image.convert(_MODES[has_alpha]), (tile, tile))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FeatvizError("the stored image cannot be read") from error
    if small.size == (tile, tile):
        return small, size
    padded = Image.new("RGBA", (tile, tile))
    padded.paste(small, ((tile - small.width) // 2, (tile - small.height) // 2))
    return padded, size


def encode(page: Image.Image, quality: int = QUALITY) -> bytes:
    """Encode a sheet as WebP."""
    buffer = io.BytesIO()
    page.save(buffer, "webp", quality=quality, method=2)
    return buffer.getvalue()


def ending(content: bytes) -> str | None:
    """Return the suffix of an encoded image by its first bytes; None if browsers cannot show it."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return ".webp"
    if content.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    return None
