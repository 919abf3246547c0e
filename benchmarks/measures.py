"""Attribution methods by measures, on photographs, with EfficientNet-Lite0.

    python benchmarks/measures.py --photographs 4 --json measures.json
    python benchmarks/measures.py --methods grad_cam kernel_shap --json measures.json  # adds

The predicted classes of scikit-image's colour photographs, then of the photographs that the attacks
are measured on (``attack_images.txt``). The measures are those of ``featviz measure``. With
``--json`` the rows are added to those of the file, so that a table can be made in several runs, and
the whole table is printed.
"""

import argparse
import json
from pathlib import Path

import attack_images
import torch
from report import machine

import featviz as fv
from featviz.attribution.measures.comparison import Comparison, compare_methods
from featviz.attribution.methods import METHODS
from featviz.io.images import read

NAMES = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png")


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=int, default=4)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    model = fv.load("efficientnet_lite0")
    names, photos = photographs(model, given.photographs)
    document = {"machine": machine(), "photographs": names, "values": {}, "failures": {}}
    if given.json and given.json.exists():
        document = json.loads(given.json.read_text("utf-8"))
        if document["photographs"] != names:
            raise SystemExit(f"{given.json} is about other photographs: {document['photographs']}")
    for method in given.methods:
        found = compare_methods(model, photos, [method], samples=given.samples)
        document["values"] |= found.record["values"]
        document["failures"] |= found.failures
        print(found.markdown().splitlines()[-1], flush=True)
        if given.json:
            given.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    rows = {
        method: {
            name: torch.tensor([float("nan") if v is None else v for v in values])
            for name, values in row.items()
        }
        for method, row in document["values"].items()
    }
    print(Comparison(rows, document["failures"]).markdown())


if __name__ == "__main__":
    main()
