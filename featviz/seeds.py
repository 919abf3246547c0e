"""Randomness: a generator for each sample and purpose, so that pictures do not share draws."""

from __future__ import annotations

import hashlib

import torch

from featviz.errors import FeatvizError
from featviz.types import Seed


def generator(seed: int, stream: str) -> torch.Generator:
    """Return a CPU generator that depends on ``seed`` and on what it is for."""
    digest = hashlib.blake2b(f"{stream}:{seed}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def expand(seed: Seed, batch: int) -> list[int]:
    """Return one seed a sample: ``seed + i``, or the given ones.

    Raises
    ------
    FeatvizError
        If a sequence of another length than ``batch`` is given.
    """
    if isinstance(seed, int):
        return [seed + i for i in range(batch)]
    seeds = [int(s) for s in seed]
    if len(seeds) != batch:
        raise FeatvizError(f"{len(seeds)} seeds for {batch} pictures")
    return seeds
