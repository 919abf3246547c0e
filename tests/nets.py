"""Small networks, each made for one difficulty, and a few real photographs."""

from __future__ import annotations

import dataclasses

import skimage.data
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import featviz as fv


def seeded(make, seed: int = 0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


class Small(nn.Module):
    """Convolution, ReLU, convolution, head; works at every size."""

    def __init__(self, channels: int = 2, spatial: int = 2) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[spatial - 1]
        self.first = conv(channels, 4, 3, padding=1)
        self.act = nn.ReLU()
        self.second = conv(4, 5, 3, stride=2, padding=1)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = self.second(self.act(self.first(x)))
        return self.head(x.flatten(2).mean(2))


def tiny(spatial: int = 2, channels: int = 2) -> fv.Model:
    net = seeded(lambda: Small(channels, spatial))
    return fv.Model(net, mean=0.5, std=0.25, size=(8,) * spatial, channels=channels)


class InPlace(nn.Module):
    """Everything that spoils naive hooks: `+=` on a layer's output, in-place ReLU, a view."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.flat = nn.Flatten()

    def forward(self, x):
        y = self.conv(x)
        z = self.norm(y)
        z += 10
        z = self.act(z)
        view = self.flat(z)
        z *= 2
        return view


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.act = nn.Tanh()

    def forward(self, x):
        return self.act(self.conv(self.act(self.conv(x))))


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...]


class Structured(nn.Module):
    """A recurrent layer (tuples), a dictionary, and a dataclass at the end."""

    class Both(nn.Module):
        def forward(self, x):
            return {"mean": x.mean(1), "last": x[:, -1]}

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.both = Structured.Both()
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        sequence, (h, c) = self.lstm(x.flatten(1, 2))
        both = self.both(sequence)
        return Output(self.head(both["mean"] + both["last"]), (h, c))


class Deep(nn.Module):
    """Counts how many of its blocks ran."""

    def __init__(self, depth: int = 6) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(depth))
        self.ran = 0

    def forward(self, x):
        self.ran = 0
        for block in self.blocks:
            try:
                x = block(x)
            except Exception:  # a network that swallows errors must not swallow the early end
                raise AssertionError from None
            self.ran += 1
        return x


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Linear(width, width)

    def forward(self, x):
        y = self.norm(x)
        x = x + self.attn(y, y, y)[0]
        return x + F.gelu(self.mlp(x))


class Tokens(nn.Module):
    """A two-block vision transformer: 16 px, patches of 4, class token first, width 12."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, stride=4)
        self.cls = nn.Parameter(torch.randn(1, 1, 12))
        self.blocks = nn.Sequential(Block(12), Block(12))
        self.head = nn.Linear(12, 7)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        return self.head(self.blocks(x)[:, 0])


def tokens() -> fv.Model:
    return fv.Model(seeded(Tokens), mean=0.5, std=0.5, size=16, channels=3)


class ChannelsLast(nn.Module):
    """Swin's layout: maps (B, H, W, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 2, stride=2)
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        return self.norm(self.stem(x).movedim(1, -1))


class Dead(nn.Module):
    """Channel 0 lives; channel 1 is never above zero, so that its ReLU passes no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        with torch.no_grad():
            self.conv.bias.copy_(torch.tensor([1.0, -100.0]))
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.conv(x))


class Explodes(nn.Module):
    """Becomes NaN once the mean of the image passes a limit."""

    def __init__(self, limit: float = 0.6) -> None:
        super().__init__()
        self.limit = limit
        self.body = nn.Identity()

    def forward(self, x):
        return self.body((self.limit - x.mean((1, 2, 3), keepdim=True)).sqrt() * -1)


def opened(path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
    return picture


def photographs() -> torch.Tensor:
    pictures = []
    for name in ("chelsea", "coffee", "rocket", "astronaut"):
        pixels = getattr(skimage.data, name)()
        image = torch.tensor(pixels[..., :3]).movedim(-1, 0)[None].float() / 255
        side = min(image.shape[2:])
        top, left = ((s - side) // 2 for s in image.shape[2:])
        crop = image[..., top : top + side, left : left + side]
        pictures.append(F.interpolate(crop, (224, 224), mode="bilinear", antialias=True))
    return torch.cat(pictures).clamp(0, 1)


def rgb() -> fv.Model:
    """A tiny network of colour images, for the command line."""
    return tiny(channels=3)
