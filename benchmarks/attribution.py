"""Do attributions beat chance? Deletion and insertion of each method on some photographs.

    python benchmarks/attribution.py --photographs 12 --json attribution.json

Explains the predicted class of EfficientNet-Lite0 and prints, for each method, the means of the
areas under its deletion and insertion curves, those of random orders of the same cells, on how many
photographs it deletes, inserts, and does both faster than every random order, and its time.
"""

import argparse
import json
import time
from pathlib import Path

import attack_images
import torch

import featviz as fv
from featviz.attribution.methods import METHODS

HEAD = f"| {'method':24} | deletion | insertion | deletes | inserts | both | s an image |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=int, default=12)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--steps", type=int, default=14, help="Points of the curves.")
    parser.add_argument("--orders", type=int, default=3, help="Random orders.")
    parser.add_argument("--cells", type=int, default=28, help="Cells a side; 0 for single pixels.")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    model = fv.load("efficientnet_lite0")
    names, photos = attack_images.load(model, given.photographs)
    goals = [
        fv.class_logit(int(k))
        for k in torch.cat([model(p[None]).detach() for p in photos]).argmax(1)
    ]
    print(HEAD)
    print("|---|---|---|---|---|---|---|")
    rows = {}
    for name in given.methods:
        begun = time.perf_counter()
        made = fv.attribute(model, photos, goals, method=name)
        seconds = (time.perf_counter() - begun) / len(made)
        curves = made.curves(
            model, steps=given.steps, orders=given.orders, cells=given.cells or None
        )
        deletes = curves.deletion_auc < curves.random_deletion_auc.amin(1)
        inserts = curves.insertion_auc > curves.random_insertion_auc.amax(1)
        row = {
            "deletion": curves.deletion_auc.mean().item(),
            "insertion": curves.insertion_auc.mean().item(),
            "deletes": int(deletes.sum()),
            "inserts": int(inserts.sum()),
            "both": int(curves.beats_random.sum()),
            "seconds": seconds,
            "random_deletion": curves.random_deletion_auc.mean().item(),
            "random_insertion": curves.random_insertion_auc.mean().item(),
        }
        rows[name] = row
        print(
            f"| {name:24} | {row['deletion']:.2f} | {row['insertion']:.2f} | {row['deletes']} "
            f"| {row['inserts']} | {row['both']} | {seconds:.1f} |",
            flush=True,
        )
    last = next(iter(rows.values()))
    print(
        f"| {'random orders':24} | {last['random_deletion']:.2f} | {last['random_insertion']:.2f} "
        "| | | | |"
    )
    if given.json:
        given.json.write_text(
            json.dumps({"photographs": names, "methods": rows}, indent=1), "utf-8"
        )


if __name__ == "__main__":
    main()
