"""Many small images in few files: sprite sheets, as WebP."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageOps

from featviz.errors import FeatvizError

TILE = 112
#: A sheet is decoded whole before its first tile is seen: 32 × 16 tiles are 6.4 million pixels, and
#: a layer of 1,000 units has two sheets. Some phones stop at 16 million, WebP at 16383 a side.
COLUMNS, ROWS = 32, 16
QUALITY = 85
_MODES = ("RGB", "RGBA")


class Sheets:
    """Places for ``count`` tiles, in as many sheets as it takes; a full sheet is encoded at once.

    Tile i is in sheet ``i // per``, and there at row and column ``divmod(i % per, columns)``.
    """

    def __init__(
        self, count: int, tile: int = TILE, columns: int = COLUMNS, rows: int = ROWS
    ) -> None:
        self.count, self.tile = count, tile
        self.columns = max(1, min(columns, count))
        self.per = self.columns * rows
        self._pages: dict[int, Image.Image] = {}
        self._left = [min(self.per, count - k) for k in range(0, count, self.per)]
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._left)

    def rows(self, sheet: int) -> int:
        """Return how many rows a sheet has."""
        return -(-min(self.per, self.count - sheet * self.per) // self.columns)

    def layout(self, names: Sequence[str]) -> dict[str, Any]:
        """Return what the pages need to find a tile."""
        rows = [self.rows(k) for k in range(len(self))]
        return {"columns": self.columns, "per": self.per, "rows": rows, "files": list(names)}

    def place(self, index: int, tile: Image.Image | None) -> tuple[int, Image.Image] | None:
        """Put a tile from :func:`fit` at its place, none to leave it empty.

        Returns the number and the image of a sheet that has all its tiles now.
        """
        sheet, rest = divmod(index, self.per)
        row, column = divmod(rest, self.columns)
        with self._lock:
            if tile is not None:
                self._page(sheet, tile.mode).paste(tile, (column * self.tile, row * self.tile))
            self._left[sheet] -= 1
            if self._left[sheet]:
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
    """Decode an image; return it whole within a tile, and its own size.

    Raises
    ------
    FeatvizError
        If it is no picture.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            size = picture.size
            alpha = "A" in picture.getbands() or "transparency" in picture.info
            picture.draft("RGB", (2 * tile, 2 * tile))
            small = ImageOps.contain(picture.convert(_MODES[alpha]), (tile, tile))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FeatvizError("the stored image cannot be read") from error
    if small.size == (tile, tile):
        return small, size
    whole = Image.new("RGBA", (tile, tile))
    whole.paste(small, ((tile - small.width) // 2, (tile - small.height) // 2))
    return whole, size


def encode(page: Image.Image, quality: int = QUALITY) -> bytes:
    """Return a sheet as WebP."""
    buffer = io.BytesIO()
    page.save(buffer, "webp", quality=quality, method=2)
    return buffer.getvalue()


def ending(content: bytes) -> str | None:
    """Return the file ending of an encoded image that browsers show, by its first bytes."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return ".webp"
    if content.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    return None
