"""Random generators, one per sample and purpose, so that images do not share random draws."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from featviz.errors import FeatvizError
from featviz.types import Seed
from featviz.validation import SEED_LIMIT, whole


def generator(seed: int, stream: str) -> torch.Generator:
    """Return a CPU generator that depends on ``seed`` and on its purpose, ``stream``."""
    digest = hashlib.blake2b(f"{stream}:{seed}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def expand(seed: Seed, batch: int) -> list[int]:
    """Return one seed per sample: ``seed + i``, or the given ones.

    Raises
    ------
    FeatvizError
        If a seed is not a whole number, or their number is not ``batch``.
    """
    if isinstance(seed, Sequence) and not isinstance(seed, (str, bytes)):
        seeds = [_as_int(s) for s in seed]
    else:
        first = _as_int(seed)
        return [first + i for i in range(batch)]
    if not seeds:
        raise FeatvizError("no seeds: give an int, or one int per image")
    if len(seeds) != batch:
        raise FeatvizError(f"{len(seeds)} seeds for {batch} images")
    return seeds


def _as_int(seed: Any) -> int:
    return whole("a seed", seed, -SEED_LIMIT, SEED_LIMIT - 1)
