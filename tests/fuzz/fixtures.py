"""Files that command lines name: good ones, and broken ones of each kind."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

import featviz as fv
from tests.fuzz import network


def _pixels(height: int = 16, width: int = 16, channels: int = 3) -> np.ndarray:
    values = np.random.default_rng(height).integers(0, 256, (height, width, channels))
    return values.astype(np.uint8).squeeze()


def _bomb(path: Path) -> None:
    """A PNG whose header announces 100,000 x 100,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000))
    content = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def write(folder: Path) -> dict[Path, bytes]:
    """Write the files into ``folder``; return the contents of those that must not change."""
    rgb = Image.fromarray(_pixels())
    rgb.save(folder / "rgb.png")
    rgb.convert("L").save(folder / "gray.png")
    rgb.convert("RGBA").save(folder / "rgba.png")
    rgb.convert("P").save(folder / "palette.gif")
    rgb.save(folder / "photo.jpg")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(_pixels(7, 13)).save(folder / "odd.png")
    Image.fromarray(_pixels(9, 9, 1).astype(np.uint16) * 200).save(folder / "deep.png")
    content = (folder / "rgb.png").read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not a picture")
    _bomb(folder / "bomb.png")
    os.mkfifo(folder / "pipe.png")
    for name in ("folder", "sub", "empty", "pictures", "mixed"):
        (folder / name).mkdir()
    for i in range(3):
        Image.fromarray(_pixels(10 + i, 12)).save(folder / "pictures" / f"{i}.png")
        Image.fromarray(_pixels(10 + i, 12)).save(folder / "mixed" / f"{i}.png")
    (folder / "mixed" / "broken.png").write_text("not a picture")
    np.save(folder / "vector.npy", np.array([1.0, 0, 2, 1]))
    np.save(folder / "matrix.npy", np.ones((3, 3, 2)))
    np.save(folder / "words.npy", np.array(["a", "b"]))
    for name in ("text", "empty"):
        (folder / f"{name}.pt2").write_text(name if name == "text" else "")
    fv.zoo.export(network.make(), folder / "net.pt2")
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
