"""Image files: reading, writing, and the settings stored in a PNG."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from featviz.errors import FeatvizError, shorten
from featviz.io.decode import from_pil
from featviz.io.files import check_readable, check_writable, write_bytes
from featviz.types import Tensor

#: Key of the PNG text chunk that holds the settings as JSON.
SETTINGS_KEY = "featviz"


def png_bytes(picture: Image.Image, settings: dict[str, Any] | None = None) -> bytes:
    """Return an image encoded as PNG, with its settings as text."""
    info = PngInfo()
    if settings:
        info.add_text("Software", f"featviz {settings['version']}")
        info.add_itxt(SETTINGS_KEY, json.dumps(settings, ensure_ascii=False))
    buffer = io.BytesIO()
    picture.save(buffer, "png", pnginfo=info)
    return buffer.getvalue()


def check_output(path: str | Path) -> Path:
    """Return ``path`` if an image can be written there; raise before a long computation otherwise.

    Raises
    ------
    FeatvizError
        If the suffix is no image format, or the folder is missing or not writable.
    """
    if not os.fspath(path):
        raise FeatvizError("cannot write to an empty path: name an image file (.png)")
    path = Path(path)
    image_format = Image.registered_extensions().get(path.suffix.lower())
    writable = image_format in Image.SAVE
    if writable and image_format != "PNG":
        try:  # Pillow registers formats that it cannot write
            Image.new("RGB", (16, 16)).save(io.BytesIO(), image_format)
        except (OSError, ValueError, KeyError):
            writable = False
    if not writable:
        raise FeatvizError(
            f"cannot write {shorten(repr(str(path)))}: its extension names no image format (.png)"
        )
    return check_writable(path)


def save(picture: Image.Image, path: str | Path, settings: dict[str, Any] | None = None) -> Path:
    """Write an image atomically; a PNG carries its settings.

    Raises
    ------
    FeatvizError
        If the suffix is no image format, or the file cannot be written.
    """
    path = check_output(path)
    if path.suffix.lower() == ".png":
        return write_bytes(path, png_bytes(picture, settings))
    buffer = io.BytesIO()
    image_format = Image.registered_extensions()[path.suffix.lower()]
    picture.convert("RGB").save(buffer, image_format)
    return write_bytes(path, buffer.getvalue())


def read(
    path: str | Path, channels: int, size: tuple[int, ...] | None = None, crop: float = 1.0
) -> Tensor:
    """Return an image file as floats (1, C, H, W) in [0, 1], C = 1 (gray) or 3 (RGB).

    See :func:`featviz.io.decode.from_pil`.

    Raises
    ------
    FeatvizError
        If it is not an image or exceeds Pillow's limit, or ``channels`` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise FeatvizError(f"cannot read {str(path)!r} as {channels} channels: give a tensor")
    check_readable(path)
    try:
        # Not by name: Pillow then memory-maps a TIFF and ignores its orientation.
        with Path(path).open("rb") as file, Image.open(file) as image:
            return from_pil(image, channels, size, crop)
    except FeatvizError as error:
        raise FeatvizError(f"cannot read {str(path)!r}: {error}") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise FeatvizError(
            f"cannot read {str(path)!r}: over {limit} pixels, Pillow's limit"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not an image"
        raise FeatvizError(f"cannot read {str(path)!r}: {reason}") from error


def read_settings(path: str | Path) -> dict[str, Any]:
    """Return the settings stored in an image of featviz.

    Raises
    ------
    FeatvizError
        If the file is not an image or holds no settings.
    """
    check_readable(path)
    try:
        with Image.open(path) as image:
            image.load()  # the text may come behind the pixels
            text = image.info.get(SETTINGS_KEY)
    except Image.DecompressionBombError as error:
        raise FeatvizError(f"cannot read {str(path)!r}: too many pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        reason = getattr(error, "strerror", None) or "it is not an image"
        raise FeatvizError(f"cannot read {str(path)!r}: {reason}") from error
    if text is None:
        raise FeatvizError(
            f"{str(path)!r} carries no featviz settings: only PNG files of featviz do"
        )
    try:
        settings = json.loads(text, parse_constant=_refuse)
        json.dumps(settings, ensure_ascii=False).encode()  # no lone surrogates
    except (ValueError, TypeError, RecursionError) as error:
        reason = shorten(str(error))
        raise FeatvizError(f"the settings in {str(path)!r} are damaged: {reason}") from error
    if not isinstance(settings, dict):
        raise FeatvizError(f"the settings in {str(path)!r} are damaged: not an object")
    return settings


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number of JSON")
