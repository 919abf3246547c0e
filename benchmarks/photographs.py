"""Photographs for the benchmarks that need them: takes those out of GCompris' resource files.

GCompris is a Debian package (gcompris-qt-data) with two hundred freely licensed photographs of
animals, buildings, tools and landscapes, inside compiled resources (.rcc), where they lie as whole
JPEG and WebP files.

    apt-get install gcompris-qt-data
    python benchmarks/photographs.py photographs/
    python benchmarks/quality.py --photographs photographs/ --classes 50
"""

import argparse
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

SOURCE = Path("/usr/share/gcompris-qt/rcc")
#: The activities whose images are photographs, rather than drawings and paintings.
ACTIVITIES = (
    "categorization",
    "erase",
    "explore_farm_animals",
    "explore_monuments",
    "explore_world_animals",
    "explore_world_music",
)
#: Images with a smaller side are icons.
SMALLEST = 200
#: Standard deviation of grey values below which an image is a texture to draw on.
FLAT = 0.04


def embedded(data: bytes) -> Iterator[bytes]:
    """Yield what begins like a JPEG or WebP file inside ``data``, and what follows it."""
    for match in re.finditer(rb"\xff\xd8\xff|RIFF....WEBP", data, re.DOTALL):
        start, size = match.start(), len(data)
        if match[0].startswith(b"RIFF"):  # Pillow wants a WebP file to end where it says
            size = 8 + int.from_bytes(match[0][4:8], "little")
        yield data[start : start + size]


def photograph(data: bytes) -> Image.Image | None:
    """Return the photograph in ``data``, or None if it is something else."""
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return None
    if image.mode != "RGB" or min(image.size) < SMALLEST:
        return None
    return image if np.asarray(image.convert("L")).std() / 255 > FLAT else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", type=Path, default=SOURCE)
    options = parser.parse_args()
    files = [options.source / f"{activity}.rcc" for activity in ACTIVITIES]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        parser.error(f"{options.source} lacks {', '.join(missing)}: install gcompris-qt-data")
    options.folder.mkdir(parents=True, exist_ok=True)
    written = set()
    for file in files:
        for data in embedded(file.read_bytes()):
            image = photograph(data)
            if image is not None:
                name = hashlib.sha256(image.tobytes()).hexdigest()[:12]
                written.add(name)  # some are in two files
                image.save(options.folder / f"{file.stem}-{name}.png")
    print(f"{options.folder}: {len(written)} photographs")


if __name__ == "__main__":
    main()
