"""Do maps depend on the network, on the class, and on its answer? Adebayo2018 and Nie2018.

    python benchmarks/sanity.py cascade --photographs 4 --sheet cascade.png
    python benchmarks/sanity.py cascade --methods lrp lime --json cascade.json --plot cascade.png
    python benchmarks/sanity.py classes --photographs 4 --sheet classes.png
    python benchmarks/sanity.py pooling

``cascade``: rank correlation of the absolute map with that of the trained Lite0, while its layers
lose their weights from the output down; the sheet shows the maps of the first photograph, the plot
all methods of the JSON file, which each method is added to.
``classes``: distance (0 the same, 1.41 unrelated) between the maps of the predicted class and of
the class with the lowest logit, for the trained network, one with half of its layers randomized and
a random one; and between the maps of a photograph and of the same under an attack that changed the
class, each of its own class; the sheet shows these maps of the first photograph.
``pooling``: the distance between two classes in random networks, by
depth, with and without max-pooling.
"""

import argparse
import json
import warnings
from pathlib import Path

import torch
from cascade_plot import plot_cascade
from measures import photographs
from report import machine, markdown
from torch import nn

import featviz as fv
from featviz.attribution.measures.class_sensitivity import class_sensitivity
from featviz.attribution.measures.weight_cascade import cascade, randomized, weighted_layers
from featviz.attribution.prediction import predicted_logits
from featviz.attribution.result import colours
from featviz.io import sheets

#: A signed gradient is SmoothGrad without noise.
GRADIENT = {"method": "smooth_grad", "steps": 1, "sd": 0.0}
BACKWARD = {
    "gradient": GRADIENT,
    "input_x_gradient": {"method": "input_x_gradient"},
    "guided_backprop": {"method": "guided_backprop"},
    "deconvnet": {"method": "deconvnet"},
    "grad_cam": {"method": "grad_cam"},
}
CASCADED = {
    **BACKWARD,
    "smooth_grad_squared": {"method": "smooth_grad_squared", "steps": 8},
    "layer_cam": {"method": "layer_cam"},
    "guided_grad_cam": {"method": "guided_grad_cam"},
    "full_grad": {"method": "full_grad"},
}
#: The columns of the sheet of ``classes``.
SHOWN = (
    "predicted class",
    "least likely class",
    "half shuffled",
    "all shuffled",
    "after the attack",
)
#: Passes for a map: fewer than by default, as there are maps of six networks to make.
FEW = {
    "integrated_gradients": {"steps": 16},
    "xrai": {"steps": 16},
    "noise_grad": {"steps": 8},
    "fusion_grad": {"steps": 8},
    "var_grad": {"steps": 8},
    "occlusion": {"cells": 8},
    "feature_ablation": {"cells": 8},
    "prediction_difference": {"cells": 8, "steps": 2},
    "kernel_shap": {"steps": 200},
    "lime": {"steps": 200},
    "rise": {"steps": 200},
}


def run_cascade(given: argparse.Namespace) -> dict:
    model = fv.load("efficientnet_lite0")
    _, photos = photographs(model, given.photographs)
    goals = predicted_logits(model, photos, None)
    rows, pictures, labels = {}, [], []
    if given.json and given.json.exists():
        rows = json.loads(given.json.read_text("utf-8"))["cascade"]
    for name in given.methods or CASCADED:
        options = CASCADED.get(name, {"method": name, **FEW.get(name, {})})
        found = cascade(model, photos, goals, depths=given.depths, **options)
        rows[name] = found.absolute_rank_correlation.nanmean(1).tolist()
        similar = found.ssim.mean(1).tolist()
        print(name, [round(v, 2) for v in rows[name]], [round(v, 2) for v in similar], flush=True)
        if given.sheet:
            counts = [round(f * len(weighted_layers(model))) for f in found.fractions.tolist()]
            for count in counts:
                changed = randomized(
                    model, weighted_layers(model)[:count], photos if count else None
                )
                made = fv.attribute(changed, photos[:1], goals[0], **options)
                pictures.append(colours(made.heat)[0])
                labels.append(f"{name.replace('_', ' ')}: {count} layers")
        if given.json:
            save(given.json, "cascade", rows)
    heads = ["method", *(f"{d / given.depths:.0%}" for d in range(given.depths + 1))]
    print(markdown(heads, [[f"`{n}`", *(f"{v:.2f}" for v in row)] for n, row in rows.items()]))
    if given.sheet:
        sheets.sheet(torch.stack(pictures), labels, columns=1 + given.depths).save(given.sheet)
    if given.plot:
        plot_cascade(rows, given.plot)
    return rows


def save(path: Path, part: str, rows: dict) -> None:
    path.write_text(json.dumps({"machine": machine(), part: rows}, indent=1) + "\n", "utf-8")


def run_classes(given: argparse.Namespace) -> dict:
    model = fv.load("efficientnet_lite0")
    _, photos = photographs(model, given.photographs)
    goals = predicted_logits(model, photos, None)
    with torch.no_grad():
        logits = torch.cat([model(p[None]) for p in photos])
    lowest = [fv.class_logit(int(c)) for c in logits.argmin(1)]
    attacked = fv.attack(model, photos, eps=2 / 255, steps=10).images
    new = predicted_logits(model, attacked, None)
    changed = torch.tensor([str(a) != str(b) for a, b in zip(goals, new, strict=True)])
    layers = weighted_layers(model)
    networks = {
        "trained": model,
        "half random": randomized(model, layers[: len(layers) // 2], photos),
        "random": randomized(model, layers, photos),
    }
    rows, pictures, labels = {}, [], []
    for name, options in BACKWARD.items():
        row = {
            kind: class_sensitivity(network, photos, goals, lowest, **options).nanmean().item()
            for kind, network in networks.items()
        }
        under = class_sensitivity(model, photos, goals, new, others=attacked, **options)
        row["attack"] = under[changed].nanmean().item()
        rows[name] = row
        if given.sheet:
            maps = [fv.attribute(n, photos[:1], g, **options) for n, g in (
                (model, goals[0]), (model, lowest[0]), (networks["half random"], goals[0]),
                (networks["random"], goals[0]))]  # fmt: skip
            maps.append(fv.attribute(model, attacked[:1], new[0], **options))
            pictures += [colours(made.heat)[0] for made in maps]
            labels += [f"{name.replace('_', ' ')}: {which}" for which in SHOWN]
    if given.sheet:
        sheets.sheet(torch.stack(pictures), labels, columns=len(SHOWN)).save(given.sheet)
    print(f"{int(changed.sum())} of {len(photos)} photographs changed their class")
    print(markdown(["method", *row], [[f"`{n}`", *(f"{v:.2f}" for v in r.values())]
                                      for n, r in rows.items()]))  # fmt: skip
    return rows


def random_network(depth: int, pooled: bool) -> fv.Model:
    """Return convolutions and ReLUs, a pooling or a stride after each second, and a linear head."""
    torch.manual_seed(depth)  # the benchmark's own process
    layers, width = [], 3
    for k in range(depth):
        stride = 2 if k % 2 and not pooled else 1
        conv = nn.Conv2d(width, 32, 3, stride, 1)
        nn.init.kaiming_normal_(conv.weight)
        layers += [conv, nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pooled and k % 2 else []
        width = 32
    net = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(10))
    net(torch.zeros(1, 3, 64, 64))
    return fv.Model(net, size=64, mean=0.5, std=0.25)


def run_pooling(given: argparse.Namespace) -> dict:
    _, photos = photographs(fv.load("efficientnet_lite0"), given.photographs)
    photos = torch.nn.functional.interpolate(photos, (64, 64), mode="area")
    rows = {}
    for pooled in (True, False):
        for name in ("gradient", "guided_backprop", "deconvnet"):
            rows[f"{name}, {'max-pooling' if pooled else 'strides'}"] = [
                class_sensitivity(
                    random_network(depth, pooled), photos, "class:0", "class:1", **BACKWARD[name]
                ).mean().item()
                for depth in (2, 4, 6, 8)
            ]  # fmt: skip
    print(markdown(["map", "2 layers", "4", "6", "8"],
                   [[n, *(f"{v:.2f}" for v in row)] for n, row in rows.items()]))  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["cascade", "classes", "pooling"])
    parser.add_argument("--photographs", type=int, default=4)
    parser.add_argument("--depths", type=int, default=5)
    parser.add_argument("--methods", nargs="*", help="of the cascade; by default the cheap ones")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", ".*has no evidence")
    rows = {"cascade": run_cascade, "classes": run_classes, "pooling": run_pooling}[given.part](
        given
    )
    if given.json:
        save(given.json, given.part, rows)


if __name__ == "__main__":
    main()
