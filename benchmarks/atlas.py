"""What an atlas costs: units an hour, whether that is linear, workers, and a projection.

    python benchmarks/atlas.py linear --units 16 32 64
    python benchmarks/atlas.py workers --units 32
    python benchmarks/atlas.py project --units 8

Lite0, both signs. ``linear`` and ``workers`` render units of one layer, each into a folder of its
own, and divide; ``project`` renders a few units of every block, which end at different depths, and
multiplies by how many units each has.
"""

import argparse
import tempfile
import time
from pathlib import Path

from report import machine, markdown, write

import featviz as fv


def run(model, layer: str, units: int, options: argparse.Namespace, workers: int = 0) -> float:
    """Return the seconds that an atlas takes."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        fv.atlas(
            model,
            layer,
            out=folder,
            units=range(units),
            steps=options.steps,
            workers=workers,
            progress=True,
        )
        return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["linear", "workers", "project"])
    parser.add_argument("--layer", default="_blocks.10")
    parser.add_argument("--units", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--steps", type=int, default=128, help="32 or more, so that it is traced")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(machine())
    model = fv.load("efficientnet_lite0")
    rows = []
    if options.kind == "project":
        count = options.units[0]
        blocks = [
            i for i in model.layers() if i.name.startswith("_blocks.") and "." not in i.name[8:]
        ]
        total, units = 0.0, 0
        for info in blocks:
            seconds = run(model, info.name, min(count, info.units), options) / min(
                count, info.units
            )
            total += seconds * info.units
            units += info.units
            rows.append([info.name, info.units, f"{seconds:.2f}", f"{3600 / seconds:.0f}"])
        print(markdown(["layer", "units", "s a unit, both signs", "units an hour"], rows))
        print(f"all {units} units of {len(blocks)} blocks: {total / 3600:.1f} h")
        rows.append(["all", units, total])
    else:
        cases = [(n, 0) for n in options.units]
        if options.kind == "workers":
            cases = [(options.units[0], workers) for workers in (0, 1, 2)]
        for units, workers in cases:
            seconds = run(model, options.layer, units, options, workers)
            rows.append([units, workers, f"{seconds:.1f}", f"{seconds / units:.2f}"])
            rows[-1].append(f"{3600 * units / seconds:.0f}")
        head = ["units, both signs", "workers", "s", "s a unit", "units an hour"]
        print(markdown(head, rows))
    settings = {k: v for k, v in vars(options).items() if k != "json"}
    write(options.json, "cpu", settings=settings, rows=rows)


if __name__ == "__main__":
    main()
