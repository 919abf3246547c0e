"""Statistics of a folder of images by featviz in one pass, against numpy over all pixels at once.

    python benchmarks/calibration.py /usr/share/tuxpaint/stamps [--size 96] [--colours 2000]

Photographs among clip art are told by their number of colours. Prints the largest relative
deviation of the colour covariance, of the mean and of the Fourier magnitude; the same for a
synthetic two-channel dataset.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import featviz as fv
from featviz.io import images


def photographs(folder: Path, colours: int) -> list[Path]:
    """Return the images below ``folder`` with more than ``colours`` colours."""
    found = []
    for path in sorted(folder.rglob("*.[pj][np]g")):
        with Image.open(path) as picture:
            small = picture.convert("RGBA").convert("RGB")
            small.thumbnail((256, 256))
            if len(set(small.get_flattened_data())) > colours:
                found.append(path)
    return found


def compare(name: str, pictures: torch.Tensor) -> None:
    stats = fv.calibrate(pictures, channels=pictures.shape[1], size=tuple(pictures.shape[2:]))
    pixels = pictures.double().numpy()
    rows = pixels.transpose(0, 2, 3, 1).reshape(-1, pixels.shape[1])
    wanted = np.cov(rows, rowvar=False, bias=True).reshape(pixels.shape[1], -1)
    found = stats.covariance.double().numpy()
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    mean = np.abs(stats.mean.double().numpy() - rows.mean(0)).max()
    print(f"{name}: {len(pictures)} images, covariance within {error:.1e}, mean within {mean:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--colours", type=int, default=2000)
    given = parser.parse_args()
    side = (given.size, given.size)
    paths = photographs(given.folder, given.colours)
    if not paths:
        raise SystemExit(f"no photographs below {given.folder}")
    compare(str(given.folder), torch.cat([images.read(path, 3, side) for path in paths]))
    mixing = torch.tensor([[0.1, 0.0], [0.05, 0.2]])
    noise = torch.randn(200, 2, *side, generator=torch.Generator().manual_seed(0))
    compare("synthetic", 0.5 + torch.einsum("ij,bjhw->bihw", mixing, noise))


if __name__ == "__main__":
    main()
