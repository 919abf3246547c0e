"""What each set of settings buys: recognition, spectrum, contrast, Fréchet distance, time.

Renders class logits of one network with each set of settings and measures: whether networks that
had no part in an image see its class (top-1, mean probability); the share of luminance power above
0.15 cycles a pixel; the share of clipped values; the standard deviation of values; with
--photographs, the Fréchet distance of another network's features to those of photographs; with
--units, how many inner units the images activate more than the best photograph does.

    python benchmarks/quality.py                               # twelve classes, every preset
    python benchmarks/quality.py --classes 50 --only standard lucid --save sheets/
    python benchmarks/quality.py --ingredients                 # the default without each ingredient
    python benchmarks/quality.py --only standard --units 60 --photographs /usr/share/tuxpaint/stamps
"""

import argparse
import time
from pathlib import Path

import torch
from report import markdown, write
from torch.nn import functional as F

import featviz as fv
from featviz.io.dataset import ImageDataset

#: Spread over the 1,000 classes: animals, plants, things, buildings, vehicles, food, scenes.
_FIFTY = """
285 985 1 130 207 309 340 407 497 751 920 963 7 22 39 71 88 105
148 151 235 254 291 292 323 347 366 385 402 417 421 437 444 483 508 541
562 574 629 671 701 717 779 805 847 866 879 937 950 980
"""
CLASSES = tuple(map(int, _FIFTY.split()))
NETWORKS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
SOFT = "jitter:0.07,rotate:10,scale:0.75:1.15,noise:0.04"
NOISE = "channel_noise:0.07,branch_noise:0.1"
VERSION_0_1 = {
    "steps": 512,
    "param": "fourier:decay=1:chroma=0",
    "transforms": f"jitter:{1 / 7!r},rotate:15,scale:0.5:1.2,noise:0.1",
    "lr": 0.05,
    "prior": 0,
    "coarse": 0,
    "schedule": "constant",
    "weight_decay": 0,
}
SETTINGS = {
    "fast": {"quality": "fast"},
    "standard": {},
    "best": {"quality": "best"},
    "lucid": {"quality": "lucid"},
    "featviz 0.1": VERSION_0_1,
    "maco": {"param": "maco", "prior": 0},
}
INGREDIENTS = {
    "standard": {},
    "no noise in the network": {"transforms": f"pad:0:blur,{SOFT}"},
    "channels only": {"transforms": f"pad:0:blur,{SOFT},channel_noise:0.07"},
    "no prior": {"prior": 0},
    "spots beyond the frame": {"transforms": f"pad:0:spots,{SOFT},{NOISE}"},
    "mirror beyond the frame": {"transforms": f"{SOFT},{NOISE}"},
    "the full size throughout": {"coarse": 0},
    "decay 1": {"param": "fourier:decay=1"},
    "colour as fine as luminance": {"param": "fourier:chroma=0"},
    "no weight decay, and the lower rate of then": {"weight_decay": 0},
    "rate 0.2": {"lr": 0.2},
    "rate 0.4": {"lr": 0.4},
    "cosine from the first step": {"schedule": "cosine"},
}


def high_frequencies(images: torch.Tensor, above: float = 0.15) -> float:
    """The share of luminance power at more than ``above`` cycles a pixel, under a Hann window."""
    luminance = (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1)
    luminance = luminance - luminance.mean((1, 2), keepdim=True)
    height, width = luminance.shape[1:]
    window = torch.hann_window(height)[:, None] * torch.hann_window(width)
    power = torch.fft.fft2(luminance * window).abs().square()
    frequency = (torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.fftfreq(width) ** 2).sqrt()
    return float((power * (frequency > above)).sum((1, 2)).div(power.sum((1, 2))).mean())


def clipped(images: torch.Tensor) -> float:
    """The share of values that are black or white in an 8-bit file."""
    return float(((images <= 0.5 / 255) | (images >= 254.5 / 255)).float().mean())


def recognition(images: torch.Tensor, classes: list[int], judge: str) -> tuple[int, float]:
    """How many images another network sees right, and its mean probability of their classes."""
    model = fv.load(judge)
    images = F.interpolate(images, model.size, mode="bilinear", antialias=True)
    with torch.no_grad():
        probabilities = torch.cat([model(part) for part in images.split(8)]).softmax(1)
    wanted = torch.tensor(classes)
    own = probabilities.gather(1, wanted[:, None])
    return int((probabilities.argmax(1) == wanted).sum()), float(own.mean())


def features(images: torch.Tensor) -> torch.Tensor:
    """Pooled features (B, D) of a network that made none of the images."""
    model = fv.load("efficientnet_lite2")
    images = F.interpolate(images, model.size, mode="bilinear", antialias=True)
    with torch.no_grad():
        parts = [model.activations(part, ["_bn1"])["_bn1"] for part in images.split(8)]
    return torch.cat([part.relu().mean((2, 3)) for part in parts]).double()


def frechet(first: torch.Tensor, second: torch.Tensor) -> float:
    """The Fréchet distance of two sets of features (N, D), [Heusel2017]_."""
    offset = (first.mean(0) - second.mean(0)).square().sum()
    roots = [(x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (first, second)]
    # The trace of (C1 C2)^1/2 is the sum of the singular values of the product of their roots.
    common = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return float(offset + roots[0].square().sum() + roots[1].square().sum() - 2 * common)


def photographs(folder: Path, count: int) -> torch.Tensor:
    items = list(ImageDataset(folder))
    step = max(len(items) // count, 1)  # a folder is sorted: take them evenly from all of it
    return torch.stack([item.image(3, (224, 224)) for item in items[::step][:count]])


def super_stimuli(model: fv.Model, result: fv.Result, folder: Path) -> str:
    """How many units the images activate more than the best photograph does."""
    best = fv.examples(model, folder, list(result.objectives), k=1).top.values[:, 0]
    return f"{int((result.scores > best).sum())}/{len(result)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=NETWORKS[0], choices=NETWORKS)
    parser.add_argument("--classes", type=int, default=12, help="how many of the list")
    parser.add_argument("--only", nargs="+", help="sets of settings")
    parser.add_argument("--ingredients", action="store_true")
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--units", type=int, default=0, help="inner units against photographs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="a folder for contact sheets")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    sets = INGREDIENTS if options.ingredients else SETTINGS
    names = options.only or list(sets)
    classes = list(CLASSES[: options.classes])
    judges = [name for name in NETWORKS if name != options.model]
    model = fv.load(options.model)
    real = photographs(options.photographs, 200) if options.photographs else None
    real_features = None if real is None else features(real)
    rows = []
    for name in names:
        begun = time.perf_counter()
        result = fv.render(
            model, [fv.class_logit(c) for c in classes], seed=options.seed, **sets[name]
        )
        seconds = (time.perf_counter() - begun) / len(classes)
        row = [name]
        for judge in judges:
            top, probability = recognition(result.images, classes, judge)
            row.append(f"{top}/{len(classes)}, {probability:.2f}")
        row += [f"{high_frequencies(result.images):.3f}", f"{clipped(result.images):.3f}"]
        row += [f"{float(result.images.std()):.2f}", f"{seconds:.1f}"]
        if real_features is not None:
            row.append(f"{frechet(features(result.images), real_features):.1f}")
        if options.units:
            generator = torch.Generator().manual_seed(0)
            layers = ["_blocks.4", "_blocks.10", "_blocks.13"]
            goals = []
            for k in range(options.units):
                layer = layers[k % 3]
                units = model.layer(layer).units
                unit = int(torch.randint(units, (), generator=generator))
                goals.append(fv.channel(layer, unit))
            inner = fv.render(model, goals, seed=options.seed, **sets[name])
            row.append(super_stimuli(model, inner, options.photographs))
            if options.save:
                options.save.mkdir(parents=True, exist_ok=True)
                inner.save(options.save / f"{name.replace(' ', '_')}_units.png", columns=10)
        print(row, flush=True)
        rows.append(row)
        if options.save:
            options.save.mkdir(parents=True, exist_ok=True)
            result.save(options.save / f"{name.replace(' ', '_')}.png", columns=6)
    head = ["settings", *judges, "above 0.15", "clipped", "deviation", "s an image"]
    head += ["Fréchet"] if real_features is not None else []
    head += ["above the best photograph"] if options.units else []
    print(markdown(head, rows))
    if real_features is not None:
        half = len(real_features) // 2
        floor = frechet(real_features[:half], real_features[half:])
        print(f"{len(real_features)} photographs; two halves of them: {floor:.1f}")
    write(options.json, "cpu", head=head, rows=rows)


if __name__ == "__main__":
    main()
