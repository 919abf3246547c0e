"""One image and what is asked about it; and captum, for the methods that are captum's."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from featviz.errors import FeatvizError
from featviz.optim.evaluator import Evaluator
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class Case:
    """One image (1, C, *size) on the network's device, within the model's session.

    ``baseline`` is of the same shape, for methods that have one. ``options`` has every option that
    the method takes.
    """

    evaluator: Evaluator
    image: Tensor
    baseline: Tensor | None
    seed: int
    options: dict[str, Any]

    @property
    def batch_size(self) -> int:
        """How many copies of the image go through the network together."""
        return self.evaluator.batch_size

    def leaf(self) -> Tensor:
        """Return a copy of the image that gradients are taken by."""
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
