"""Do perturbations made on one network fool others that had no part in them?

    pip install --no-deps torchattacks
    python benchmarks/transfer.py --images 48 --json transfer.json

Lite0 is attacked at eps 8/255 in 20 steps, on photographs that it is sure of
(``attack_images.txt``); counted are the images of which Lite0, Lite1 and Lite2 change their
prediction. All three see images of Lite0's size. featviz with and without noise in the network, as
in Ghost Networks [Li2020]_, beside torchattacks' attacks that are made to transfer, if that is
installed, with its own defaults but the same radius and number of steps.
"""

import argparse
import sys
import time
from pathlib import Path

import attack_images
import torch
from attacks import predicted
from picture_measures import NETWORKS
from report import markdown, write

import featviz as fv

NOISE = "channel_noise:0.1"
BRANCHES = "channel_noise:0.1,branch_noise:0.2"
WARP = "jitter:0.05,scale:0.9:1.05"
#: What is given to featviz.attack.
OURS = {
    "PGD": {},
    "momentum": {"method": "mifgsm"},
    "PGD, noise": {"transforms": NOISE},
    "momentum, noise": {"method": "mifgsm", "transforms": NOISE},
    "momentum, noise and branch noise": {"method": "mifgsm", "transforms": BRANCHES},
    "momentum, warp": {"method": "mifgsm", "transforms": WARP},
    "momentum, warp, noise": {"method": "mifgsm", "transforms": f"{WARP},{NOISE}"},
    "momentum, warp, noise, 5 draws": {
        "method": "mifgsm",
        "transforms": f"{WARP},{NOISE}",
        "eot": 5,
    },
}
#: torchattacks' classes, and the gradients that each takes in a step.
THEIRS = {
    "PGD": 1,
    "MIFGSM": 1,
    "DIFGSM": 1,
    "TIFGSM": 1,
    "NIFGSM": 1,
    "SINIFGSM": 5,
    "VMIFGSM": 6,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--eps", type=float, default=8, help="in 255ths")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    eps, steps = options.eps / 255, options.steps
    networks = [fv.load(name) for name in NETWORKS]
    model = networks[0]
    _, images = attack_images.load(model, options.images)
    before = [predicted(network, images) for network in networks]
    labels = before[0]
    rows = []

    def report(name: str, passes: int, found: torch.Tensor, seconds: float) -> None:
        assert float((found - images).abs().max()) <= eps + 1e-3
        after = [predicted(network, found) for network in networks]
        changed = [int((a != b).sum()) for a, b in zip(after, before, strict=True)]
        rows.append([name, passes, *changed, f"{seconds / len(images):.2f}"])
        print(rows[-1], flush=True)

    for name, given in OURS.items():
        begun = time.perf_counter()
        result = fv.attack(
            model,
            images,
            away=labels.tolist(),
            eps=eps,
            steps=steps,
            early_exit=False,
            batch_size=options.batch,
            **given,
        )
        passes = steps * given.get("eot", 1)
        report(f"featviz, {name}", passes, result.images, time.perf_counter() - begun)
    try:
        import torchattacks
    except ImportError as error:
        print(f"torchattacks is left out: {error}", file=sys.stderr)
    else:
        module = model.as_module()
        for name, passes in THEIRS.items():
            begun = time.perf_counter()
            attack = getattr(torchattacks, name)(module, eps=eps, steps=steps)
            pairs = zip(images.split(options.batch), labels.split(options.batch), strict=True)
            found = torch.cat([attack(x, y).detach() for x, y in pairs])
            report(f"torchattacks, {name}", steps * passes, found, time.perf_counter() - begun)
    head = ["attack", "gradients", *NETWORKS, "s an image"]
    print(f"predictions changed, of {len(images)}")
    print(markdown(head, rows))
    write(options.json, "cpu", head=head, rows=rows, images=len(images))


if __name__ == "__main__":
    main()
