"""Dataset examples: does memory stay the same, and how fast do images go through?

    python benchmarks/examples.py FOLDER --counts 100 1000 10000 --layer _blocks.2 --size 112
    python benchmarks/examples.py FOLDER --check      # equality with numpy on 64 of them

All channels of a layer of Lite0, k = 9. The images of the folder, and those below it, are
repeated as often as it takes, each time in another brightness, so that no two are the same and
none is kept because it came first. Each count runs in a process of its own: its peak of resident
memory, what of that the process had before the first image, and the images that are held.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance
from report import markdown, write

import featviz as fv
from featviz.io.dataset import picture_files


class Repeated(torch.utils.data.Dataset):
    """The images of a folder, over and over, never twice in the same brightness."""

    def __init__(self, folder: Path, count: int) -> None:
        self.files, self.count = picture_files(folder), count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Image.Image:
        with Image.open(self.files[index % len(self.files)]) as picture:
            rgba = picture.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, "white")
        rgb = Image.alpha_composite(ground, rgba).convert("RGB")
        return ImageEnhance.Brightness(rgb).enhance(0.6 + index * 0.6180339887 % 1 * 0.8)


def load(options: argparse.Namespace) -> tuple[fv.Model, list[fv.Objective]]:
    model = fv.load("efficientnet_lite0")
    model.size = (options.size, options.size)
    units = model.layer(options.layer).units
    return model, [fv.channel(options.layer, i) for i in range(units)]


def resident() -> float:
    """Return the peak of resident memory so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one(options: argparse.Namespace, count: int) -> dict[str, float]:
    model, goals = load(options)
    fv.examples(model, Repeated(options.folder, 8), goals)  # warm: what every run has
    before = resident()
    begun = time.perf_counter()
    found = fv.examples(model, Repeated(options.folder, count), goals, k=options.k)
    seconds = time.perf_counter() - begun
    return {
        "images": count,
        "peak MiB": round(resident()),
        "of that before": round(before),
        "held": len(found.cache),
        "held MiB": round(found.cache.nbytes / 2**20, 1),
        "images/s": round(count / seconds, 1),
    }


def check(options: argparse.Namespace, count: int = 64) -> None:
    model, goals = load(options)
    dataset = Repeated(options.folder, count)
    found = fv.examples(model, dataset, goals, k=options.k, correlate=True)
    images = torch.stack([fv.dataset.as_image(dataset[i], 3, model.size) for i in range(count)])
    with torch.no_grad():
        maps = [model.activations(i, [options.layer])[options.layer] for i in images.split(4)]
    table = torch.cat(maps).mean((2, 3)).numpy()
    for sign, ranked in ((-1, found.top), (1, found.bottom)):
        wanted = np.argsort(sign * table.T, axis=1, kind="stable")[:, : options.k]
        np.testing.assert_array_equal(ranked.indices, wanted)
    for q in (0.01, 0.5, 0.99):
        np.testing.assert_allclose(
            found.statistics.quantile(q), np.quantile(table.astype(float), q, axis=0), atol=1e-5
        )
    correlation = np.corrcoef(table.T.astype(float))
    np.testing.assert_allclose(found.correlation(options.layer), correlation, atol=1e-4)
    print(f"{len(goals)} units, {count} images: examples, quantiles, correlations equal numpy's")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--layer", default="_blocks.2")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("-k", type=int, default=9)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.check:
        check(options)
        return
    if options.one:
        print(json.dumps(one(options, options.one)))
        return
    rows = []
    for count in options.counts:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", str(count)]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(run.stdout.splitlines()[-1]))
        print(rows[-1], file=sys.stderr)
    print(markdown(list(rows[0]), [list(row.values()) for row in rows]))
    write(options.json, "cpu", layer=options.layer, size=options.size, rows=rows)


if __name__ == "__main__":
    main()
