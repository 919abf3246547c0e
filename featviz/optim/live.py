"""A preview of the images while they are optimized, in a notebook."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from PIL import Image

from featviz.errors import FeatvizError
from featviz.io import sheets
from featviz.optim.callbacks import Callback, Run, Step


class Live(Callback):
    """Show the images in a notebook while they are optimized: ``callbacks=[fv.callbacks.Live()]``.

    Parameters
    ----------
    interval
        Seconds between previews. Only then are images copied from the device, so that the cost
        does not depend on the number of steps.
    show
        What shows a preview: a function of a Pillow image. Default: one output of the notebook,
        which is updated.

    Raises
    ------
    FeatvizError
        At the start of a run, outside of a notebook without ``show``.
    """

    def __init__(
        self, interval: float = 1.0, *, show: Callable[[Image.Image], Any] | None = None
    ) -> None:
        self.interval, self._given = interval, show
        self._shown = 0.0

    def on_start(self, run: Run) -> None:
        self._show = self._given or _notebook_output()
        self._shown = float("-inf")

    def on_step(self, step: Step) -> bool | None:
        now = time.monotonic()
        if now - self._shown >= self.interval:
            self._shown = now
            scores = zip(step.run.objectives, step.scores.tolist(), strict=True)
            labels = [f"{text}  {score:.3g}" for text, score in scores]
            images = step.images.detach().float().clamp(0, 1).cpu()
            self._show(sheets.sheet(images, labels))
        return None


def _notebook_output() -> Callable[[Image.Image], Any]:
    try:
        from IPython.core.getipython import get_ipython
        from IPython.display import display
    except ImportError:
        shell = None
    else:
        shell = get_ipython()
    if shell is None:
        raise FeatvizError("a live preview needs a notebook; elsewhere give Live(show=function)")
    handle = display(display_id=True)
    return lambda page: handle.update(page)
