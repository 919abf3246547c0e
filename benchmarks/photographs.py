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
import warnings
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
    """Yield what begins like a JPEG or WebP file inside ``data``."""
    for start, kind in ((b"\xff\xd8\xff", "jpeg"), (b"RIFF", "webp")):
        at = data.find(start)
        while at >= 0:
            if kind == "jpeg":
                yield data[at : data.find(b"\xff\xd9", at) + 2] if b"\xff\xd9" in data[at:] else b""
            elif data[at + 8 : at + 12] == b"WEBP":
                yield data[at : at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")]
            at = data.find(start, at + 4)


def photograph(data: bytes) -> Image.Image | None:
    """Return the photograph in ``data``, or None if it is something else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
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
            name = hashlib.sha256(data).hexdigest()[:12]
            image = None if name in written else photograph(data)
            if image is not None:
                written.add(name)
                image.save(options.folder / f"{file.stem}-{name}.png")
    print(f"{options.folder}: {len(written)} photographs")


if __name__ == "__main__":
    main()
