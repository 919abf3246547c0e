"""One picture and what is asked about it, and captum, where a method is captum's."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from featviz.attribution.forward import Forward
from featviz.errors import FeatvizError
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class Case:
    """One picture (1, C, *size) on the network's device, within the model's session.

    ``baseline`` is of the same shape, for methods that have one. ``together`` copies of the picture
    go through the network at a time. ``options`` has every option that the method takes.
    """

    forward: Forward
    image: Tensor
    baseline: Tensor | None
    seed: int
    together: int
    options: dict[str, Any]

    def leaf(self) -> Tensor:
        """Return a copy of the picture that gradients are taken by."""
        return self.image.detach().clone().requires_grad_()

    @property
    def base(self) -> Tensor:
        """The baseline, where there is one."""
        assert self.baseline is not None
        return self.baseline


def captum() -> Any:
    """Import ``captum.attr``; raise :class:`FeatvizError` with what to install if it fails."""
    try:
        return importlib.import_module("captum.attr")
    except ImportError as error:
        raise FeatvizError(
            "this method is captum's, which is not installed: pip install 'featviz[explain]'"
        ) from error
