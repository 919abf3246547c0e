"""Normal random numbers that cost a copy: slices of one long, fixed sequence.

A slice is determined by one float, drawn on the CPU, and is the same on every device.
"""

from __future__ import annotations

import functools
import math

import torch

from featviz.types import Tensor

#: Numbers in the sequence: 16 MiB, 28 times an image of 224 px.
BANK_SIZE = 1 << 22
_GOLDEN = (math.sqrt(5) - 1) / 2


@functools.lru_cache(maxsize=2)
def _bank(device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(BANK_SIZE)
    return torch.randn(BANK_SIZE, generator=generator).to(device)


def normals(start: float, count: int, device: torch.device) -> Tensor:
    """Return ``count`` numbers from a fraction ``start`` of the sequence on, (count,).

    A long slice consists of pieces that lie far apart.
    """
    bank = _bank(device)
    piece = min(count, len(bank) // 2)
    last_start = len(bank) - piece
    parts = []
    for k in range(-(-count // piece)):
        begin = int((start + k * _GOLDEN) % 1 * last_start)
        parts.append(bank[begin : begin + min(piece, count - k * piece)])
    return parts[0] if len(parts) == 1 else torch.cat(parts)
