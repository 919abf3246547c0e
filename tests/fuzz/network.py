"""The network that is fuzzed, and factories that fail in every way."""

from __future__ import annotations

import contextlib
import time

import torch
from torch import nn

import featviz as fv


class Tiny(nn.Module):
    """Batch-norm, ReLU, a residual branch and a head: 8 px, three channels, three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU()
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.act(self.norm(self.first(x)))
        x = x + self.act(self.second(x))
        return self.head(x.mean((2, 3)))


def make() -> fv.Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Tiny()
    return fv.Model(net, mean=0.5, std=0.25, size=8, classes=["fish", "bird", "sea bird"])


def broken():
    raise KeyError("weights\nare missing")


def leaves():
    raise SystemExit(7)


def number():
    return 3


class Odd(nn.Module):
    def forward(self, x):
        return {"a": "text"}


def odd_output():
    return fv.Model(Odd(), size=8)


class Raises(nn.Module):
    def forward(self, x):
        raise RuntimeError("no\nway")


def raises():
    return fv.Model(Raises(), size=8)


def stubborn():
    """Go on after Ctrl-C, as code that swallows every exception does."""
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            print("computing", flush=True)
            time.sleep(3600)
