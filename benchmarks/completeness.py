"""Do attributions add up to what they should? Relevance, DeepLIFT and integrated gradients.

    python benchmarks/completeness.py --photographs 10

Explains the predicted class of EfficientNet-Lite0, and the difference of two inner channels, and
prints the largest deviation over the photographs: for ``lrp``, of the relevance of pixels and
biases from the value at which it starts; for the complete methods, of the sum from the difference
that the baseline makes. captum's DeepLIFT is given the same network.
"""

import argparse
import time
import warnings

import attack_images
import captum.attr
import torch

import featviz as fv
from featviz.attribution.propagation.composites import COMPOSITES

INNER = "channel:_blocks.12:33 - channel:_blocks.12:8"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=int, default=10)
    given = parser.parse_args()
    model = fv.load("efficientnet_lite0")
    _, photos = attack_images.load(model, given.photographs)
    print(f"| {'method':24} | {'objective':44} | largest deviation | steps | s an image |")
    print("|---|---|---|---|---|")
    for rule in COMPOSITES:
        begun = time.perf_counter()
        made = fv.attribute(model, photos, method="lrp", rule=rule)
        total = made.attributions.double().sum((1, 2, 3))
        total += torch.tensor(made.settings["bias_relevance"])
        show(f"lrp {rule}", "predicted class", total - made.scores, made.scores, "", begun)
    for method in ("deep_lift", "integrated_gradients"):
        for goal in (None, INNER):
            begun = time.perf_counter()
            made = fv.attribute(model, photos, goal, method=method)
            steps = made.settings.get("steps", "")
            steps = f"{min(steps)} to {max(steps)}" if isinstance(steps, list) else steps
            difference = made.scores - made.baseline_scores
            show(method, goal or "predicted class", made.delta, difference, steps, begun)
    begun, deltas, differences = time.perf_counter(), [], []
    module = model.as_module()
    for photo in photos.split(1):
        logits = module(photo)[0]
        target = int(logits.argmax())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            explain = captum.attr.DeepLift(module).attribute
            values = explain(photo.clone().requires_grad_(), torch.zeros_like(photo), target=target)
        differences.append((logits - module(torch.zeros_like(photo))[0])[target].item())
        deltas.append(values.sum().item() - differences[-1])
    deltas, differences = torch.tensor(deltas), torch.tensor(differences)
    show("captum's DeepLift", "predicted class", deltas, differences, "", begun)


def show(method, goal, deltas, differences, steps, begun) -> None:
    deviation = (deltas / differences).abs().max().item()
    seconds = (time.perf_counter() - begun) / len(deltas)
    print(f"| {method:24} | {goal:44} | {deviation:.2%} | {steps} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
