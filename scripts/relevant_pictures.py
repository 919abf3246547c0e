"""Make docs/images/relevant.jpg: what photographs share, and what of it a class responds to.

    python benchmarks/photographs.py photographs/
    python scripts/relevant_pictures.py photographs/

For two classes, images whose sorted activations in five layers match those of the six photographs
that excite it most: all of them, those that are relevant to the class, the class together with the
latter, and the class alone. Ten minutes on one core.
"""

import sys
from pathlib import Path

import torch

import featviz as fv
from featviz.io.dataset import ImageDataset
from featviz.io.sheets import sheet

CLASSES = ('class:"bison"', 'class:"koala"')
#: Layers and their weights: the first has large values, and says least.
LAYERS = {"_bn0": 0.1, "_blocks.2": 1, "_blocks.4": 1, "_blocks.10": 1, "_blocks.15": 1}
SETTINGS = fv.Settings(steps=128, prior=0, focus=0)
OUTPUT = Path(__file__).parent.parent / "docs" / "images" / "relevant.jpg"


def main(folder: str) -> None:
    model = fv.load("efficientnet_lite0")
    photographs = torch.stack([item.image(3, model.size) for item in ImageDataset(folder)])
    rows, labels = [], []
    for text in CLASSES:
        unit = fv.objective(text)
        with torch.no_grad():
            values = torch.cat([unit(model, part) for part in photographs.split(16)])
        best = photographs[values.topk(6).indices]
        everything = relevant = fv.objective("0")
        for layer, weight in LAYERS.items():
            everything += weight * fv.sort_match(layer, best)
            relevant += weight * fv.sort_match(layer, best, of=unit)
        goals = {
            "all that they share": everything,
            "what is relevant": relevant,
            f"{text} and what is relevant": unit + 10 * relevant,
            text: unit,
        }
        for label, goal in goals.items():
            image = fv.render(model, goal, settings=SETTINGS).images
            print(f"{label}: {unit(model, image).item():.1f}, {relevant(model, image).item():.2f}")
            rows.append(image)
            labels.append(label)
    OUTPUT.parent.mkdir(exist_ok=True)
    sheet(torch.cat(rows), labels, columns=4).convert("RGB").save(OUTPUT, quality=88)


if __name__ == "__main__":
    main(sys.argv[1])
