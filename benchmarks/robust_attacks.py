"""Attacks that survive the world: views of one image, and one patch on many pictures.

    python benchmarks/robust_attacks.py eot --images 8 --save eot.png
    python benchmarks/robust_attacks.py classes 92 599 954
    python benchmarks/robust_attacks.py patch --train 24 --test 40 --save patch.png

``eot`` compares PGD with expectation over transformations (rotation by 15 degrees, scale 0.8 to
1.2, noise) with plain PGD at the same radius and steps: the share of 200 random views of each
image that Lite0 does not see as what the photograph shows. Beside it, how often plain views of
the photograph itself are taken for something else; photographs are those of which at most
``--unsteady`` of 50 other views are. ``patch`` makes a patch of 50 px from some
photographs and counts on others, in places drawn anew, what share Lite0, Lite1 and Lite2 take for
the class. ``classes`` says how far a few steps come towards each of some classes, on the former
photographs only: how easily a class is reached differs by orders of magnitude.
"""

import argparse
from pathlib import Path

import attack_images
import torch
from torch.nn import functional as F

import featviz as fv
from featviz.io import images as files
from featviz.io import sheets
from featviz.seeds import generator
from featviz.transforms import Paste, prepare

VIEWS = fv.transforms.parse("rotate:15,scale:0.8:1.2,noise:0.02")


def survival(
    model: fv.Model, images: torch.Tensor, labels: torch.Tensor, views: int, first: int = 10_000
) -> torch.Tensor:
    """Return for each image the share of random views whose predicted class is not the label."""
    wrong = torch.zeros(len(images))
    size, device = tuple(images.shape[2:]), images.device
    seeds = [first + i for i in range(len(images))]  # no view that an attack has seen
    change = prepare(VIEWS, seeds, views, size, device)
    with torch.no_grad():
        for view in range(views):
            wrong += model(change(images, view)).argmax(1) != labels
    return wrong / views


def steady(model: fv.Model, count: int, unsteady: float) -> tuple[list[str], torch.Tensor]:
    """Return the first photographs of the list that are themselves known from most views."""
    names, images = attack_images.load(model, 146)
    chosen: list[int] = []
    for i in range(len(images)):
        with torch.no_grad():
            label = model(images[i : i + 1]).argmax(1)
        if survival(model, images[i : i + 1], label, 50, first=20_000)[0] <= unsteady:
            chosen.append(i)
        if len(chosen) == count:
            break
    return [names[i] for i in chosen], images[chosen]


def eot(options: argparse.Namespace) -> None:
    model = fv.load("efficientnet_lite0")
    names, images = steady(model, options.images, options.unsteady)
    with torch.no_grad():
        labels = model(images).argmax(1)
    common = {"away": labels.tolist(), "eps": options.eps, "steps": options.steps}
    common["early_exit"] = False
    plain = fv.attack(model, images, **common)
    robust = fv.attack(model, images, transforms=VIEWS, eot=options.eot, **common)
    if options.save:
        robust.save(options.save)
    print(f"{len(names)} images, eps {options.eps}, {options.steps} steps: {', '.join(names)}")
    for name, made in (("photograph", images), ("PGD", plain.images), ("EOT", robust.images)):
        shares = survival(model, made, labels, options.views)
        print(
            f"{name:10}  {shares.mean():6.1%} of {options.views} views each are taken for "
            f"something else (least of an image {shares.min():.1%})"
        )


def halves(model: fv.Model, options: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the photographs that a patch is made on, and those that it is judged on."""
    _, images = attack_images.load(model, options.train + options.test)
    # The list is sorted: both halves get of every kind.
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order[: options.train]], images[order[options.train :]]


def make(model: fv.Model, images: torch.Tensor, to: int, options: argparse.Namespace):
    return fv.patch_attack(
        model,
        images,
        to=to,
        size=50,
        steps=options.steps,
        lr=options.lr,
        batch_size=options.batch,
        progress=True,
    )


def classes(options: argparse.Namespace) -> None:
    model = fv.load("efficientnet_lite0")
    train, _ = halves(model, options)
    for to in options.classes:
        made = make(model, train, to, options)
        late = made.history[-options.steps // 4 :].mean().item()
        print(f"{to:4} {model.classes[to]:30} log p {late:6.2f} in the last quarter of the steps")


def patch(options: argparse.Namespace) -> None:
    model = fv.load("efficientnet_lite0")
    train, test = halves(model, options)
    made = make(model, train, options.to, options)
    print(f"class {options.to}, {options.steps} steps of {options.batch} images of {len(train)}")
    if options.save:
        files.save(sheets.to_pil(made.patch), options.save)
    place = Paste(test)
    drawn = [place.draw(generator(20_000 + i, "held out"), 1, (50, 50)) for i in range(len(test))]
    stuck = place.prepare(torch.stack(drawn, 1))(made.patch.expand(len(test), -1, -1, -1), 0)
    with torch.no_grad():
        for name in ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"):
            judge = fv.load(name)
            seen = F.interpolate(stuck, judge.size, mode="bilinear", antialias=True)
            share = (judge(seen).argmax(1) == options.to).float().mean().item()
            print(f"{name}: {share:.0%} of {len(test)} held-out photographs are class {options.to}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("eot")
    one.add_argument("--images", type=int, default=8)
    one.add_argument("--eps", default="4/255")
    one.add_argument("--steps", type=int, default=40)
    one.add_argument("--eot", type=int, default=8)
    one.add_argument("--views", type=int, default=200)
    one.add_argument("--unsteady", type=float, default=0.04)
    one.add_argument("--save", type=Path)
    one.set_defaults(run=eot)
    two = kinds.add_parser("patch")
    two.add_argument("--to", type=int, default=92)
    two.add_argument("--save", type=Path)
    two.set_defaults(run=patch)
    three = kinds.add_parser("classes")
    three.add_argument("classes", type=int, nargs="+")
    three.set_defaults(run=classes)
    for kind, steps, lr in ((two, 400, 0.02), (three, 50, 0.05)):
        kind.add_argument("--train", type=int, default=24)
        kind.add_argument("--test", type=int, default=40)
        kind.add_argument("--steps", type=int, default=steps)
        kind.add_argument("--batch", type=int, default=8)
        kind.add_argument("--lr", type=float, default=lr)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
