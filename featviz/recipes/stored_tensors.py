"""Tensors that a recipe has stored, to go on where it was ended."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load

from featviz.errors import FeatvizError
from featviz.types import Tensor


def read_stored(path: Path) -> dict[str, Tensor] | None:
    """Return the tensors of a safetensors file by name, None if there is no file.

    Raises
    ------
    FeatvizError
        If it cannot be read.
    """
    try:
        return load(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        raise FeatvizError(f"cannot read {str(path)!r}: delete it") from error
