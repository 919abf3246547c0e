"""Volumes, one channel, signals and tables: what is rendered is what was planted."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv

CONVOLUTIONS = {1: (nn.Conv1d, "linear"), 2: (nn.Conv2d, "bicubic"), 3: (nn.Conv3d, "trilinear")}


class Likeness(nn.Module):
    """The correlation of a pattern with each window of a one-channel input: (B, 1, *positions)."""

    def __init__(self, pattern):
        super().__init__()
        convolution, _ = CONVOLUTIONS[pattern.ndim]
        centred = pattern - pattern.mean()
        self.match = convolution(1, 1, pattern.shape, bias=False)
        self.mean = convolution(1, 1, pattern.shape, bias=False)
        with torch.no_grad():
            self.match.weight[0, 0] = centred / centred.norm()
            self.mean.weight.fill_(1 / pattern.numel())

    def forward(self, x):
        count = self.mean.weight.numel()
        variance = count * (self.mean(x**2) - self.mean(x) ** 2)
        return self.match(x) / (variance + 1e-2).sqrt()


def correlation(a, b):
    return float(np.corrcoef(np.asarray(a).ravel(), np.asarray(b).ravel())[0, 1])


@pytest.mark.parametrize(
    ("shape", "size"), [((24,), (96,)), ((16, 16), (48, 48)), ((8, 8, 8), (16, 16, 16))]
)
def test_a_pattern_in_signals_images_and_volumes(shape, size):
    """By the unit at the centre and featviz's defaults; the window is the one of that unit."""
    generator = torch.Generator().manual_seed(len(shape))
    coarse = torch.randn(1, 1, *[4] * len(shape), generator=generator)
    pattern = F.interpolate(coarse, size=shape, mode=CONVOLUTIONS[len(shape)][1])[0, 0]
    net = Likeness(pattern)
    model = fv.Model(net, size=size, channels=1)
    result = fv.render(model, "neuron:output:0", steps=128)
    image = result.images[0, 0]
    assert image.shape == size
    with torch.no_grad():
        response = net(image[None, None])[0, 0]
    corner = np.unravel_index(int(response.argmax()), response.shape)
    window = image[tuple(slice(i, i + s) for i, s in zip(corner, shape, strict=True))]
    assert correlation(window, pattern) > 0.8
    # Before, there was nothing of it.
    assert abs(correlation(torch.rand(shape, generator=generator), pattern)) < 0.5


class Prototype(nn.Module):
    """A table of six columns: the logit is highest at one row."""

    def __init__(self):
        super().__init__()
        self.row = nn.Parameter(torch.tensor([0.9, 0.1, 0.8, 0.3, 0.5, 0.7]))

    def forward(self, x):
        distance = (x.flatten(1) - self.row).square().sum(1)
        return torch.stack([-distance, distance], 1)


def test_a_row_of_a_table():
    net = Prototype()
    model = fv.Model(net, size=(1,), channels=6)
    result = fv.render(model, "class:0", steps=128)
    assert correlation(result.images[0, :, 0], net.row.detach()) > 0.8
    against = fv.render(model, "class:1", steps=128)
    assert correlation(against.images[0, :, 0], net.row.detach()) < -0.8
