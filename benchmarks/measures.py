"""Attribution methods by measures, on photographs, with EfficientNet-Lite0.

    python benchmarks/measures.py --photographs 50 --json measures.json
    python benchmarks/measures.py --methods lime --measures deletion road --json measures.json

The predicted classes of scikit-image's colour photographs, then of the photographs that the attacks
are measured on (``attack_images.txt``). The measures are those of ``featviz measure``. With
``--json`` each photograph's values are written when it is done and not computed again, so that a
table can be made in several runs, of ``--seconds`` each; the table of all that is there is printed.
Each row says on how many photographs it rests. ``random_network`` has the batch-norm statistics of
the one photograph.
"""

import argparse
import json
import math
import time
from pathlib import Path

import attack_images
import torch
from report import machine

import featviz as fv
from featviz.attribution.measures.comparison import CHANCE, MEASURES, Comparison, compare_methods
from featviz.attribution.methods import METHODS
from featviz.io.images import read

NAMES = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png")
#: ``pattern_attribution`` has no default for the images that its patterns are fitted to.
DEFAULT = [name for name in METHODS if name != "pattern_attribution"]


def photographs(model: fv.Model, count: int) -> tuple[list[str], torch.Tensor]:
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    images = torch.cat([read(folder / name, 3, model.size) for name in NAMES])
    names = [f"skimage/{name}" for name in NAMES]
    if count > len(NAMES):
        more, others = attack_images.load(model, count)
        extra = [i for i, name in enumerate(more) if name not in names]
        names, images = names + [more[i] for i in extra], torch.cat([images, others[extra]])
    return names[:count], images[:count]


def table(document: dict) -> str:
    """Return the table of all photographs' values, and how many each row rests on."""
    columns: dict[str, dict[str, list[float]]] = {}
    for rows in document["values"].values():
        for method, row in rows.items():
            for measure, value in row.items():
                value = math.nan if value is None else value
                columns.setdefault(method, {}).setdefault(measure, []).append(value)
    order = [m for m in [*METHODS, CHANCE] if m in columns]
    tensors = {m: {k: torch.tensor(v) for k, v in columns[m].items()} for m in order}
    counts = {m: max(len(v) for v in columns[m].values()) for m in order}
    heads, rule, *rows = Comparison(tensors, {}).markdown().splitlines()
    lines = [f"{heads} photographs |", f"{rule} --- |"]
    lines += [f"{row} {counts[m]} |" for row, m in zip(rows, order, strict=True)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=int, default=4)
    parser.add_argument("--methods", nargs="*", default=DEFAULT)
    parser.add_argument("--measures", nargs="*", default=list(MEASURES))
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    begun, longest = time.perf_counter(), 0.0
    model = fv.load("efficientnet_lite0")
    names, photos = photographs(model, given.photographs)
    document = {"machine": machine(), "values": {}, "failures": {}}
    if given.json and given.json.exists():
        document = json.loads(given.json.read_text("utf-8"))
    for i, name in enumerate(names):
        rows = document["values"].setdefault(name, {})
        refused = document["failures"].setdefault(name, {})
        missing = [
            method
            for method in given.methods
            if set(given.measures) - set(rows.get(method, ())) and method not in refused
        ]
        if not missing:
            continue
        started = time.perf_counter()
        if started - begun + longest > given.seconds:
            print(f"out of time before {name}: run again")
            break
        found = compare_methods(
            model, photos[i : i + 1], missing, measures=given.measures, seed=i,
            samples=given.samples,
        )  # fmt: skip
        for method, row in found.record["values"].items():
            rows[method] = rows.get(method, {}) | {k: values[0] for k, values in row.items()}
        refused |= found.failures
        if given.json:
            scratch = given.json.with_suffix(".part")
            scratch.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
            scratch.replace(given.json)
        longest = max(longest, time.perf_counter() - started)
        print(f"{i + 1} of {len(names)}: {time.perf_counter() - started:.0f} s", flush=True)
    print(table(document))
    for name, refused in document["failures"].items():
        for method, why in refused.items():
            print(f"{name}: {method}: {why}")


if __name__ == "__main__":
    main()
