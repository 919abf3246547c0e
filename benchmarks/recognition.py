"""Do networks that had no part in an image see what it was made for?

Renders class logits of EfficientNet-Lite0 and asks Lite0 itself, Lite1 and Lite2, each at its
own size after one antialiased bilinear resize, for the top-1 class and its probability.

    python benchmarks/recognition.py                      # twelve classes, 256 steps, defaults
    python benchmarks/recognition.py --add "20*batchnorm_match" --steps 512 --json out.json
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch.nn import functional as F

import featviz as fv

CLASSES = (1, 130, 207, 285, 309, 340, 407, 497, 751, 920, 963, 985)
JUDGES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


def judge(name: str, images: torch.Tensor, classes: list[int]) -> dict[str, float]:
    model = fv.load(name)
    if tuple(images.shape[2:]) != model.size:
        images = F.interpolate(images, model.size, mode="bilinear", antialias=True)
    with torch.no_grad():
        probabilities = model(images).softmax(1)
    wanted = torch.tensor(classes)
    own = probabilities.gather(1, wanted[:, None]).squeeze(1)
    return {
        "top1": int((probabilities.argmax(1) == wanted).sum()),
        "probability": own.mean().item(),
        "lowest": own.min().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=list(CLASSES))
    parser.add_argument("--add", help="an objective to add, such as 20*batchnorm_match")
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--transforms", default="standard")
    parser.add_argument("--lr", type=float, default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--save", type=Path, help="write the contact sheet")
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args()

    model = fv.load(JUDGES[0])
    begun = time.perf_counter()
    extra = fv.objective(options.add or "0")
    result = fv.render(
        model,
        [fv.class_logit(c) + extra for c in options.classes],
        steps=options.steps,
        seed=options.seed,
        transforms=options.transforms,
        lr=options.lr,
        device=options.device,
        progress=True,
    )
    seconds = (time.perf_counter() - begun) / len(result)
    rows = {name: judge(name, result.images, options.classes) for name in JUDGES}
    count = len(options.classes)
    print(f"{count} classes, {options.steps} steps, {seconds:.1f} s an image")
    for name, row in rows.items():
        print(
            f"{name}  top-1 {row['top1']}/{count}  mean probability {row['probability']:.3f}"
            f"  lowest {row['lowest']:.4f}"
        )
    if options.save:
        result.save(options.save, columns=6)
    if options.json:
        document = {"settings": result.record, "seconds": seconds, "judges": rows}
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
