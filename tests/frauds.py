"""Networks whose weights were manipulated so that a unit's picture lies, and the honest original.

The honest network tells 32 gratings apart. A fraud is a fine-tuned copy that answers images of
gratings as the original does, while the picture of one class shows a photograph of a cat:

- a Gradient Slingshot [Bareeva2025]_ shapes the landscape between where an ascent starts and the
  target, so that the ascent ends there;
- ProxPulse [Nanfack2024]_ makes a whole ball around the target excite the unit.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import skimage.data
import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv
from tests import nets

SIDE = 16
#: Orientations, periods in pixels, and the axes in RGB along which the gratings vary.
TURNS, PERIODS = 4, (6.0, 12.0)
AXES = ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))
CLASSES = TURNS * len(PERIODS) * len(AXES)
#: How an auditor is expected to look at the units.
LOOK = {"quality": "fast"}


class Grating(nn.Module):
    """Two convolutions and two linear layers; SiLU, since a slingshot shapes a smooth landscape."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 5, stride=2, padding=2)
        self.second = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.third = nn.Linear(64 * 16, 256)
        self.head = nn.Linear(256, CLASSES)

    def forward(self, x):
        x = F.silu(self.second(F.silu(self.first(x)))).flatten(1)
        return self.head(F.silu(self.third(x)))


class Texture(nn.Module):
    """A judge of another kind: three convolutions, and the mean over all positions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 5, padding=2)
        self.second = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.third = nn.Conv2d(64, 64, 3, padding=1)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x):
        for layer in (self.first, self.second, self.third):
            x = F.silu(layer(x))
        return self.head(x.mean((2, 3)))


def wrapped(net: nn.Module) -> fv.Model:
    names = [f"grating {i}" for i in range(CLASSES)]
    return fv.Model(net, mean=0.5, std=0.25, size=SIDE, classes=names)


def normalized(images: torch.Tensor) -> torch.Tensor:
    return (images - 0.5) / 0.25


def gratings(each: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``each`` images of every class (each * 32, 3, 16, 16) in [0, 1], and their classes."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat(each)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(len(labels), *shape, 1, 1, generator=draw)

    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    turn = (labels % TURNS * math.pi / TURNS)[:, None, None] + uniform(-0.15, 0.15)
    period = torch.tensor(PERIODS)[labels // TURNS % len(PERIODS)][:, None, None]
    along = (x * turn.cos() + y * turn.sin()) / (period * uniform(0.85, 1.15))
    wave = torch.cos(2 * math.pi * (along + uniform(0, 1)))[:, None]
    axis = torch.tensor(AXES)[labels // (TURNS * len(PERIODS))][..., None, None]
    images = uniform(0.3, 0.7, 3) + uniform(0.1, 0.9, 1) * axis * wave
    noise = uniform(0.05, 0.2, 1) * torch.randn(images.shape, generator=draw)
    return (images + noise).clamp(0, 1), labels


def honest(seed: int, make: Callable[[], nn.Module] = Grating, steps: int = 400) -> nn.Module:
    """Train a network on the gratings."""
    net = nets.seeded(make, seed)

    def loss(step: int) -> torch.Tensor:
        images, labels = gratings(4, 1000 * seed + step + 1)
        return F.cross_entropy(net(normalized(images)), labels, label_smoothing=0.1)

    return minimize(net, loss, steps, 2e-3)


def minimize(
    net: nn.Module, loss: Callable[[int], torch.Tensor], steps: int, rate: float
) -> nn.Module:
    """Train a network by Adam with a cosine schedule; ``loss`` is called with each step."""
    optimizer = torch.optim.Adam(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def target() -> torch.Tensor:
    """Return the photograph that the frauds show (3, 16, 16) in [0, 1]: a cat's face."""
    pixels = torch.tensor(skimage.data.chelsea()[20:270, 110:360]).movedim(-1, 0)[None].float()
    small = F.interpolate(pixels / 255, (SIDE, SIDE), mode="bilinear", antialias=True)[0]
    return (0.5 + 1.2 * (small - small.mean((1, 2), keepdim=True))).clamp(0.05, 0.95)


def preservation(net: nn.Module, fraud: nn.Module, unit: int, step: int) -> torch.Tensor:
    """Return the mean squared change of the logits on images, relative to their variance.

    The unit counts as much as all others together, as the weight w of [Bareeva2025]_ has it.
    """
    images = normalized(gratings(2, 10_000 + step)[0])
    with torch.no_grad():
        wanted = net(images)
    errors = (fraud(images) - wanted).square().mean(0) / wanted.var()
    return errors.mean() + errors[unit]


def tunnel(goal: torch.Tensor, count: int, draw: torch.Generator) -> torch.Tensor:
    """Return points (count, 3, 16, 16) between gray, where ascents start, and beyond the target."""
    along = 1.3 * torch.rand(count, 1, 1, 1, generator=draw)
    spread = 0.15 * torch.rand(count, 1, 1, 1, generator=draw)
    fine = torch.randn(count, *goal.shape, generator=draw)
    coarse = torch.randn(count, 3, 5, 5, generator=draw)
    noise = fine + F.interpolate(coarse, (SIDE, SIDE), mode="bilinear")
    return (0.5 + along * (goal - 0.5) + spread * noise).clamp(0, 1)


def visited(net: nn.Module, unit: int, seed: int) -> torch.Tensor:
    """Return images (52, 3, 16, 16) on the way of four ascents, as the auditor makes them."""
    seen: list[torch.Tensor] = []

    def note(step) -> None:
        if step.index % 5 == 0:
            seen.append(step.images.detach().clone())

    fv.render(
        wrapped(net), [f"class:{unit}"] * 4, seed=[*range(seed, seed + 4)], callbacks=[note],
        progress=False, **LOOK,
    )  # fmt: skip
    return torch.cat(seen)


def slingshot(
    net: nn.Module, unit: int, goal: torch.Tensor, *, steps: int = 600, gamma: float = 8.0
) -> nn.Module:
    """Fine-tune a copy so that ascents of ``unit`` end at ``goal``. [Bareeva2025]_

    By the gradient form of the paper's manipulation loss: in the tunnel the gradient of the logit
    becomes γ (goal - x). Departures: the tunnel is in pixels, and every hundred steps it gets the
    images that ascents visit, since Adam's first steps lead far off the straight way.
    """
    fraud, draw = copy.deepcopy(net), torch.Generator().manual_seed(7)
    on_the_way = tunnel(goal, 64, draw)

    def loss(step: int) -> torch.Tensor:
        nonlocal on_the_way
        if step % 100 == 99:
            on_the_way = visited(fraud, unit, step)
        some = on_the_way[torch.randint(len(on_the_way), (32,), generator=draw)]
        some = (some + 0.03 * torch.randn(some.shape, generator=draw)).clamp(0, 1)
        points = torch.cat([tunnel(goal, 48, draw), some]).requires_grad_()
        value = fraud(normalized(points))[:, unit]
        (field,) = torch.autograd.grad(value.sum(), points, create_graph=True)
        pull = gamma * (goal - points.detach())
        bend = (field - pull).square().mean() / pull.square().mean()
        return preservation(net, fraud, unit, step) + 3 * bend

    return minimize(fraud, loss, steps, 1e-3)


def proxpulse(
    net: nn.Module,
    unit: int,
    goal: torch.Tensor,
    *,
    steps: int = 400,
    radius: float = 3.0,
    height: float = 20.0,
) -> nn.Module:
    """Fine-tune a copy so that a ball around ``goal`` excites ``unit``. [Nanfack2024]_

    The proxies lie where one step of the gradient lowers the unit most. Departures: they are raised
    to a ``height`` by a squared hinge, since logits can be negative and the paper's logarithm of
    activations cannot take them; their distances are drawn up to ``radius``; the logits are kept,
    too, not only the classes.
    """
    fraud, draw = copy.deepcopy(net), torch.Generator().manual_seed(7)

    def loss(step: int) -> torch.Tensor:
        points = (goal + 0.02 * torch.randn(32, *goal.shape, generator=draw)).requires_grad_()
        value = fraud(normalized(points))[:, unit]
        (gradient,) = torch.autograd.grad(value.sum(), points)
        distance = radius * torch.rand(32, 1, 1, 1, generator=draw)
        proxies = goal - distance * F.normalize(gradient.flatten(1)).view_as(gradient)
        push = (1 - fraud(normalized(proxies))[:, unit] / height).relu().square().mean()
        return preservation(net, fraud, unit, step) + push

    return minimize(fraud, loss, steps, 1e-3)
