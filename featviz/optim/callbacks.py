"""Callbacks that observe a run: a progress bar, TensorBoard, your own function."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featviz.bars import tqdm, wanted
from featviz.errors import FeatvizError
from featviz.io.event_files import open_events
from featviz.types import Tensor

if TYPE_CHECKING:
    from featviz.optim.result import Result


@dataclasses.dataclass(frozen=True)
class Run:
    """A run: the text of the objective and the seed of each sample, and the number of steps."""

    objectives: list[str]
    seeds: list[int]
    steps: int


@dataclasses.dataclass
class Step:
    """One step of a run, 0-based. Its tensors are on the device; reading a value synchronizes.

    ``images`` (B, C, *size) are the images that were scored, before the update; ``scores`` and
    ``gradient_norms`` are (B,).
    """

    index: int
    run: Run
    images: Tensor = dataclasses.field(init=False)
    scores: Tensor = dataclasses.field(init=False)
    gradient_norms: Tensor = dataclasses.field(init=False)

    @property
    def last(self) -> bool:
        """Whether this is the last planned step of the run."""
        return self.index == self.run.steps - 1


class Callback:
    """Base class: override what you need. ``on_step`` may return True to stop the run."""

    def on_start(self, run: Run) -> None:
        """Called before the first step."""

    def on_step(self, step: Step) -> bool | None:
        """Called after each step."""

    def on_end(self, result: Result) -> None:
        """Called with the result when the images are finished."""

    def close(self) -> None:
        """Called at the end, even after an error, to release resources."""


class _Function(Callback):
    def __init__(self, function: Callable[[Step], Any]) -> None:
        self.function = function

    def on_step(self, step: Step) -> bool | None:
        return self.function(step) is True


def as_callback(callback: Callback | Callable[[Step], Any]) -> Callback:
    """Return ``callback``, with a plain function of a :class:`Step` wrapped in a callback.

    Raises
    ------
    FeatvizError
        If it is neither.
    """
    if isinstance(callback, Callback):
        return callback
    if callable(callback):
        return _Function(callback)
    raise FeatvizError(f"a callback is a Callback or a function of a step, not {callback!r}")


class Progress(Callback):
    """A tqdm progress bar with the mean score, which is read at most every ``interval`` seconds."""

    def __init__(self, interval: float = 0.5) -> None:
        self.interval = interval
        self._shown = 0.0
        self._bar: Any = None

    def on_start(self, run: Run) -> None:
        label = run.objectives[0] if len(run.objectives) == 1 else f"{len(run.objectives)} images"
        self._bar = tqdm(total=run.steps, desc=label, unit="step", leave=False, progress=True)

    def on_step(self, step: Step) -> bool | None:
        self._bar.update()
        now = time.monotonic()
        if step.last or now - self._shown > self.interval:
            self._shown = now
            self._bar.set_postfix(score=f"{step.scores.mean().item():.3g}")
        return None

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def watched(callbacks: Sequence[Any], progress: bool | None) -> list[Any]:
    """Return the callbacks, with a progress bar if one is wanted."""
    return [*callbacks, Progress()] if wanted(progress) else list(callbacks)


class TensorBoard(Callback):
    """Log images, scores and gradient norms, with one tag per objective and seed.

    Parameters
    ----------
    folder
        Folder for the event files, to be opened with ``tensorboard --logdir``.
    every
        Steps between logged images; the final image is always logged.
    scalars_every
        Steps between logged values of ``score/TAG`` and ``gradient_norm/TAG``.

    Raises
    ------
    FeatvizError
        If the folder cannot be written.
    """

    def __init__(self, folder: str | Path, *, every: int = 50, scalars_every: int = 10) -> None:
        self.folder, self.every, self.scalars_every = Path(folder), every, scalars_every
        self._writer: Any = None

    def on_start(self, run: Run) -> None:
        self._tags = _tags(run)
        self._writer = open_events(self.folder)

    def on_step(self, step: Step) -> bool | None:
        if step.index % self.scalars_every == 0 or step.last:
            scores, norms = step.scores.tolist(), step.gradient_norms.tolist()
            for tag, score, norm in zip(self._tags, scores, norms, strict=True):
                self._add("scalar", f"score/{tag}", score, step.index)
                self._add("scalar", f"gradient_norm/{tag}", norm, step.index)
        if step.index % self.every == 0:
            self._add_images(step.images, step.index)
        return None

    def on_end(self, result: Result) -> None:
        if self._writer is not None:  # None if Ctrl-C came before on_start
            self._add_images(result.images, len(result.history))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _add_images(self, images: Tensor, index: int) -> None:
        if images.ndim != 4 or images.shape[1] not in (1, 3, 4):
            return  # TensorBoard shows no signals, volumes or multi-band images
        for tag, image in zip(self._tags, images.float().clamp(0, 1).cpu(), strict=True):
            self._add("image", f"image/{tag}", image, index)

    def _add(self, data_type: str, tag: str, value: Any, index: int) -> None:
        getattr(self._writer, f"add_{data_type}")(tag, value, index)


def _tags(run: Run) -> list[str]:
    from featviz.optim.result import slug

    return [f"{slug(o)}/seed{s}" for o, s in zip(run.objectives, run.seeds, strict=True)]


__all__ = ["Callback", "Progress", "Run", "Step", "TensorBoard"]


def __getattr__(name: str) -> Any:
    if name == "Live":  # it draws sheets, which nothing else here needs
        from featviz.optim.live import Live

        return Live
    raise AttributeError(f"featviz.callbacks has no {name!r}")
