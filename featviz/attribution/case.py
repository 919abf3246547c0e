"""One image to explain; and captum, for the methods that need it."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from typing import Any

from featviz.errors import FeatvizError, FeatvizWarning
from featviz.optim.evaluator import Evaluator
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class Case:
    """One image (1, C, *size) on the network's device, within the model's session.

    ``baseline`` has the same shape, for methods that use one; (N, C, *size) for those that average
    over several. ``options`` holds every option of the
    method. ``notes`` collects what the method chose by itself, such as a layer. ``shared`` is one
    dictionary for all images of a run: what is found out about the network for one of them.
    ``warned`` collects what the method warned of.
    """

    evaluator: Evaluator
    image: Tensor
    baseline: Tensor | None
    seed: int
    options: dict[str, Any]
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)
    shared: dict[Any, Any] = dataclasses.field(default_factory=dict)
    warned: list[str] = dataclasses.field(default_factory=list)

    @property
    def batch_size(self) -> int:
        """How many copies of the image go through the network per forward pass."""
        return self.evaluator.batch_size

    def leaf(self) -> Tensor:
        """Return a copy of the image that requires a gradient."""
        return self.image.detach().clone().requires_grad_()

    def warn(self, message: str) -> None:
        """Warn of something about this image, from the line that called the method."""
        self.warned.append(message)
        warnings.warn(message, FeatvizWarning, stacklevel=3)

    @property
    def base(self) -> Tensor:
        """The baseline, for methods that use one."""
        assert self.baseline is not None
        return self.baseline


def captum() -> Any:
    """Import ``captum.attr``; raise :class:`FeatvizError` with the pip command if it is missing."""
    try:
        return importlib.import_module("captum.attr")
    except ImportError as error:
        raise FeatvizError(
            "this method needs captum, which is not installed: pip install 'featviz[explain]'"
        ) from error
