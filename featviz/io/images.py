"""Pictures as files: 8-bit conversion, contact sheets, atomic writing, settings in PNG text."""

from __future__ import annotations

import io
import json
import math
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from featviz.errors import FeatvizError
from featviz.io.decode import from_pil
from featviz.types import Tensor

#: The key of the PNG text chunk that holds the settings as JSON.
SETTINGS_KEY = "featviz"


def to_pil(image: Tensor) -> Image.Image:
    """Convert one picture (C, H, W) in [0, 1], C = 1, 3 or 4, to 8 bits; rounds, then clips.

    Raises
    ------
    FeatvizError
        For another number of axes or channels: such data has no agreed colours.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3, 4):
        raise FeatvizError(
            f"cannot draw shape {tuple(image.shape)} as a picture: it takes 1, 3 or 4 channels "
            "(C, H, W); save the tensor with torch.save or numpy instead"
        )
    values = (image.detach().float().cpu() * 255).round_().clamp_(0, 255).to(torch.uint8).numpy()
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[values.shape[0]]
    pixels = values[0] if mode == "L" else np.moveaxis(values, 0, 2)
    return Image.fromarray(np.ascontiguousarray(pixels), mode)


def sheet(
    images: Tensor, labels: Sequence[str], *, columns: int | None = None, gap: int = 8
) -> Image.Image:
    """Lay pictures (B, C, H, W) out in a grid, each above its label; one alone has no label.

    Labels that are too long for the width of a picture are broken into lines.
    """
    pictures = [to_pil(image) for image in images]
    if len(pictures) == 1:
        return pictures[0]
    columns = columns or min(len(pictures), max(4, math.ceil(math.sqrt(len(pictures)))))
    columns = min(columns, len(pictures))
    width, height = pictures[0].size
    font: Any = ImageFont.load_default(max(10, min(16, width // 14)))
    texts = [wrap(label, font, width) for label in labels]
    ascent, descent = font.getmetrics()
    line = ascent + descent + 2
    caption = line * max(text.count("\n") + 1 for text in texts) + 4
    rows = math.ceil(len(pictures) / columns)
    page = Image.new(
        "RGBA" if pictures[0].mode == "RGBA" else "RGB",
        (columns * (width + gap) + gap, rows * (height + caption + gap) + gap),
        "white",
    )
    draw = ImageDraw.Draw(page)
    for index, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        x = gap + index % columns * (width + gap)
        y = gap + index // columns * (height + caption + gap)
        page.paste(picture, (x, y))
        draw.multiline_text((x, y + height + 2), text, fill="black", font=font, spacing=2)
    return page


def wrap(text: str, font: Any, width: int) -> str:
    """Break a label into lines, between words where it can and within them where it must."""
    lines = [""]
    for word in re.split(r"(?<=[ ,])", text):
        if font.getlength((lines[-1] + word).rstrip()) > width and lines[-1]:
            lines.append("")
        for character in word:
            if font.getlength(lines[-1] + character) > width and lines[-1].strip():
                lines.append("")
            lines[-1] += character
    return "\n".join(line.strip() for line in lines)


def png_bytes(picture: Image.Image, settings: dict[str, Any] | None = None) -> bytes:
    """Encode a picture as PNG with its settings as text."""
    info = PngInfo()
    if settings:
        info.add_text("Software", f"featviz {settings['version']}")
        info.add_itxt(SETTINGS_KEY, json.dumps(settings, ensure_ascii=False))
    buffer = io.BytesIO()
    picture.save(buffer, "png", pnginfo=info)
    return buffer.getvalue()


def save(picture: Image.Image, path: str | Path, settings: dict[str, Any] | None = None) -> Path:
    """Write a picture; a PNG carries its settings. The file appears whole or not at all.

    Raises
    ------
    FeatvizError
        If the ending is no picture format, or the file cannot be written.
    """
    path = check_output(path)
    if path.suffix.lower() == ".png":
        return write_bytes(path, png_bytes(picture, settings))
    buffer = io.BytesIO()
    kind = Image.registered_extensions()[path.suffix.lower()]
    picture.convert("RGB").save(buffer, kind)
    return write_bytes(path, buffer.getvalue())


def check_output(path: str | Path) -> Path:
    """Return ``path`` if a picture can be written there; say what is wrong before hours of work.

    Raises
    ------
    FeatvizError
        If the ending is no picture format, or the folder is missing or not writable.
    """
    path = Path(path)
    kinds = Image.registered_extensions()
    if kinds.get(path.suffix.lower()) not in Image.SAVE:
        raise FeatvizError(f"cannot write {str(path)!r}: its ending names no picture format (.png)")
    if not path.parent.is_dir():
        raise FeatvizError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise FeatvizError(f"cannot write {str(path)!r}: it is not writable")
    return path


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write a file beside its place and rename it into it, so that no half file is ever seen.

    Raises
    ------
    FeatvizError
        If the file cannot be written.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise FeatvizError(f"cannot write {str(path)!r}: {error.strerror}") from error
    return path


def read(path: str | Path, channels: int, size: tuple[int, ...] | None = None) -> Tensor:
    """Return a picture as floats (1, C, H, W) in [0, 1], C = 1 (gray) or 3 (RGB).

    See :func:`featviz.io.decode.from_pil`.

    Raises
    ------
    FeatvizError
        If it is no picture or larger than Pillow's limit, or ``channels`` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise FeatvizError(f"cannot read {str(path)!r} as {channels} channels: give a tensor")
    try:
        # An open file, since Pillow maps a named TIFF into memory and then leaves it unturned.
        with Path(path).open("rb") as file, Image.open(file) as picture:
            return from_pil(picture, channels, size)
    except FeatvizError as error:
        raise FeatvizError(f"cannot read {str(path)!r}: {error}") from error
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise FeatvizError(
            f"cannot read {str(path)!r}: over {most} pixels, Pillow's limit"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not a picture"
        raise FeatvizError(f"cannot read {str(path)!r}: {reason}") from error


def read_settings(path: str | Path) -> dict[str, Any]:
    """Return the settings that a picture of featviz carries.

    Raises
    ------
    FeatvizError
        If the file is no picture or holds no settings.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            text = picture.info.get(SETTINGS_KEY)
    except (OSError, SyntaxError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not a picture"
        raise FeatvizError(f"cannot read {str(path)!r}: {reason}") from error
    if text is None:
        raise FeatvizError(f"{str(path)!r} carries no featviz settings: only our PNG files do")
    try:
        settings = json.loads(text)
    except json.JSONDecodeError as error:
        raise FeatvizError(f"the settings in {str(path)!r} are damaged: {error}") from error
    if not isinstance(settings, dict):
        raise FeatvizError(f"the settings in {str(path)!r} are damaged: not an object")
    return settings
