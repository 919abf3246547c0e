"""Video files: MP4 by PyAV, GIF and WebP by Pillow, with one frame in memory at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featviz.errors import FeatvizError
from featviz.io.files import check_writable
from featviz.io.sheets import to_pil
from featviz.types import Tensor

ENDINGS = (".mp4", ".gif", ".webp")


def check_output(path: str | Path) -> Path:
    """Return ``path`` if a video can be written there; raise before a long computation otherwise.

    Raises
    ------
    FeatvizError
        If the suffix is no video format, PyAV is missing, or the folder is not writable.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise FeatvizError(f"cannot write {str(path)!r}: a video ends in {', '.join(ENDINGS)}")
    check_writable(path)
    if path.suffix.lower() == ".mp4":
        _pyav()
    return path


def write(path: str | Path, frames: Iterable[Tensor], fps: float = 24) -> Path:
    """Write frames (C, H, W) in [0, 1] of equal size atomically.

    MP4 is H.264 with 4:2:0 colours, which needs even sides: odd ones are padded by a pixel.

    Raises
    ------
    FeatvizError
        If there is no frame, ``fps`` is not positive, or the file cannot be written.
    """
    path = check_output(path)
    if not 0 < fps <= 1000:
        raise FeatvizError(f"fps must be positive and at most 1000, not {fps}")
    images = (to_pil(frame).convert("RGB") for frame in frames)
    first = next(images, None)
    if first is None:
        raise FeatvizError(f"cannot write {str(path)!r}: there are no frames")
    temporary = path.with_name(f".{path.name}.part")
    try:
        if path.suffix.lower() == ".mp4":
            _write_mp4(temporary, itertools.chain([first], images), fps)
        else:
            video_format = path.suffix[1:].lower()
            timing: dict[str, Any] = {"duration": 1000 / fps, "loop": 0}
            if video_format == "webp":
                timing["duration"] = round(1000 / fps)
            first.save(temporary, video_format, save_all=True, append_images=images, **timing)
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise FeatvizError(f"cannot write {str(path)!r}: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _write_mp4(path: Path, images: Iterator[Image.Image], fps: float) -> None:
    av = _pyav()
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w", format="mp4") as container:
        stream = None
        for image in images:
            pixels = np.asarray(image)
            height, width = pixels.shape[:2]
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if stream is None:
                stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "18"} if codec == "libx264" else {"qscale": "3"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        if stream is not None:
            container.mux(stream.encode())


def _pyav() -> Any:
    try:
        import av
    except ImportError:
        raise FeatvizError(
            'MP4 needs PyAV: pip install "featviz[video]", or write .gif or .webp'
        ) from None
    return av


__all__ = ["ENDINGS", "check_output", "write"]
