"""What is measured of pictures: spectrum, clipped values, recognition, distance to photographs."""

from pathlib import Path

import torch
from torch.nn import functional as F

import featviz as fv
from featviz.io.dataset import ImageDataset

NETWORKS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


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


def features(images: torch.Tensor, network: str) -> torch.Tensor:
    """Pooled features (B, D) of the last layer with positions."""
    model = fv.load(network)
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


def floor(real: torch.Tensor, count: int, draws: int = 10) -> float:
    """The mean distance of ``count`` photographs to all others: what chance alone leaves."""
    generator = torch.Generator().manual_seed(0)
    distances = []
    for _ in range(draws):
        order = torch.randperm(len(real), generator=generator)
        distances.append(frechet(real[order[:count]], real[order[count:]]))
    return sum(distances) / draws


def photographs(folder: Path) -> torch.Tensor:
    """All images of a folder at 224 px, (N, 3, 224, 224)."""
    return torch.stack([item.image(3, (224, 224)) for item in ImageDataset(folder)])
