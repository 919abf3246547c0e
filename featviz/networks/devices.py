"""Where to compute, from what the user wrote."""

from __future__ import annotations

import torch

from featviz.errors import FeatvizError

#: Images at a time by default: on a CPU, Lite0 takes half as long for four as for sixteen, each.
_TOGETHER, _TOGETHER_CPU = 32, 4
#: Keeps small gradients of fp16 from vanishing; it is divided out again.
_HALF_SCALE = 1024.0
_HALVES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve(device: str | torch.device | None, default: torch.device) -> torch.device:
    """Return a device: ``None`` is ``default``, ``"auto"`` the best one of this machine.

    Raises
    ------
    FeatvizError
        If there is no such device here.
    """
    if device is None:
        return default
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise FeatvizError(f"no device {device!r}: it is auto, cpu, cuda, cuda:1 or mps") from None
    if found.type == "cuda":
        count = torch.cuda.device_count()
        if (found.index or 0) >= count:
            raise FeatvizError(
                f"no device {str(device)!r}: this machine has {count} CUDA device(s)"
            )
        return torch.device("cuda", found.index or 0)
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise FeatvizError("no device 'mps': this machine has none")
    if found.type not in ("cpu", "mps"):
        raise FeatvizError(f"no device {str(device)!r}: it is auto, cpu, cuda, cuda:1 or mps")
    return found


def half(precision: str) -> torch.dtype | None:
    """Return what activations are cast to in a precision; None for none.

    Raises
    ------
    FeatvizError
        If it is not fp32, bf16 or fp16.
    """
    if precision not in _HALVES:
        raise FeatvizError(f"no precision {precision!r}: it is fp32, bf16 or fp16")
    return _HALVES[precision]


def gradient_scale(precision: str) -> float:
    """Return by how much gradients inside of a network are enlarged in a precision."""
    return _HALF_SCALE if precision == "fp16" else 1.0


def together(device: torch.device, batch_size: int | None) -> int:
    """Return how many images go through a network at a time: what was asked for, 4 or 32."""
    if batch_size is not None:
        return batch_size
    return _TOGETHER_CPU if device.type == "cpu" else _TOGETHER
