"""The result of optimizing images: the images, their scores and how they were made."""

from __future__ import annotations

import dataclasses
import math
import re
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from featviz.errors import FeatvizError
from featviz.io import images as _images
from featviz.io import plots, sheets
from featviz.optim.base_result import BaseResult, finite, row_of
from featviz.optim.checkpoint import Checkpoint
from featviz.types import Self, Tensor


@dataclasses.dataclass(repr=False)
class Result(BaseResult):
    """Optimized images and their scores.

    Attributes
    ----------
    images
        Float tensor (B, C, *size) in [0, 1], on the CPU.
    scores
        (B,): the objective's value for the finished images, without transforms.
    history
        (steps, B): the objective's value at each step, under the transforms.
    objectives
        The text of each image's objective.
    seeds
        The seed of each image.
    settings
        How the images were made, for :meth:`save` and ``featviz render --from``.
    failures
        Why images could not be optimized, by index; empty on success.
    redirected
        (B,): whether a ReLU was redirected in the first steps, because its true gradient was zero;
        None if redirection was disabled.
    reached
        (B,): the number of updates until ``until`` was above zero, -1 if it never was; None without
        ``until``.
    importance
        (B, *size): the absolute gradient |∂score/∂image|, summed over channels and steps and
        divided by its maximum: the pixels that the score depended on. [Fel2023]_
    state
        The free parameters, from which ``param.image`` computes the images.
    checkpoint
        The final state of the run, for ``fv.optimize(…, resume=…)``; None for several batches.
    interrupted
        Whether Ctrl-C ended the run early.
    relational
        Whether the images depend on each other, so that none can be rendered again alone.
    """

    images: Tensor
    scores: Tensor
    history: Tensor
    objectives: list[str]
    seeds: list[int]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    failures: dict[int, str] = dataclasses.field(default_factory=dict)
    redirected: Tensor | None = None
    reached: Tensor | None = None
    importance: Tensor | None = None
    state: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    interrupted: bool = False
    relational: bool = False

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice) -> Self:
        """Return the result of one image, or of a slice of them."""
        if isinstance(index, slice):
            return self._sliced(range(len(self))[index])
        i = row_of(index, len(self))
        settings = {**self.settings, "goal": self.objectives[i]}
        if self.relational:
            settings["goal"] = None
        failures = {0: self.failures[i]} if i in self.failures else {}
        return dataclasses.replace(
            self,
            images=self.images[i : i + 1],
            scores=self.scores[i : i + 1],
            history=self.history[:, i : i + 1],
            objectives=[self.objectives[i]],
            seeds=[self.seeds[i]],
            failures=failures,
            settings=settings,
            redirected=None if self.redirected is None else self.redirected[i : i + 1],
            importance=None if self.importance is None else self.importance[i : i + 1],
            reached=None if self.reached is None else self.reached[i : i + 1],
            checkpoint=None,
            state={n: t[i : i + 1] if len(t) == len(self) else t for n, t in self.state.items()},
        )

    def _sliced(self, indices: range) -> Self:
        if not indices:
            raise FeatvizError(f"no images {indices.start}:{indices.stop} of {len(self)}")
        part = cast("Self", self.join([self[i] for i in indices]))
        if len(part) > 1:
            goal = None if self.relational else f"per_sample({', '.join(part.objectives)})"
            part.settings = {**part.settings, "goal": goal}
        return part

    def numpy(self) -> np.ndarray:
        """Return the images as an array (B, *size, C) of floats in [0, 1], channels last."""
        return self.images.movedim(1, -1).numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy() if dtype is None else self.numpy().astype(dtype)
        return array.copy() if copy else array

    def plot(self) -> Image.Image:
        """Draw the score of each image over the steps, under the transforms."""
        return plots.lines(self.history, label="score")

    def __repr__(self) -> str:
        scores = ", ".join(f"{s:.4g}" for s in self.scores[:3].tolist())
        scores += ", …" if len(self) > 3 else ""
        size = "x".join(map(str, self.images.shape[2:]))
        steps = f"{len(self.history)} steps"
        return f"{super().__repr__()[:-1]}; score {scores}; {len(self)} of {size}, {steps}>"

    @property
    def record(self) -> dict[str, Any]:
        """The settings with objectives, seeds and scores, as stored in a PNG."""
        return {
            **self.settings,
            "objective": self.objectives,
            "seed": self.seeds,
            "steps_done": len(self.history),
            "score": finite(self.scores.tolist()),
        }

    def sheet(self, *, columns: int | None = None) -> Image.Image:
        return sheets.sheet(self.images, self.objectives, columns=columns)

    def save(
        self,
        path: str | Path,
        *,
        columns: int | None = None,
        separate: bool = False,
        alpha: bool = False,
    ) -> list[Path]:
        """Write one image, or a labelled contact sheet of several; return the paths written.

        With ``separate``, each image is also written to a file of its own, named after its
        objective and seed: ``out.channel-_blocks.10-42.seed0.png``. With ``alpha``, the smoothed
        importance becomes the opacity, which hides unimportant pixels.

        Raises
        ------
        FeatvizError
            If the file cannot be written, or the images are neither RGB nor gray.
        """
        path = Path(path)
        images = self._with_alpha() if alpha else self.images
        page = sheets.sheet(images, self.objectives, columns=columns)
        written = [_images.save(page, path, self.record)]
        if separate:
            for i, (text, seed) in enumerate(zip(self.objectives, self.seeds, strict=True)):
                name = f"{path.stem}.{slug(text)}.seed{seed}"
                same_name = [w for w in written if w.stem == name or w.stem.startswith(f"{name}-")]
                name += (f"-{len(same_name) + 1}" if same_name else "") + path.suffix
                image = sheets.to_pil(images[i])
                written.append(_images.save(image, path.with_name(name), self[i].record))
        return written

    def _with_alpha(self) -> Tensor:
        """Return RGB images with an opacity channel computed from the importance."""
        if self.importance is None or self.images.ndim != 4 or self.images.shape[1] not in (1, 3):
            raise FeatvizError("alpha needs gray or RGB images with an importance")
        side = max(3, min(self.images.shape[2:]) // 16) // 2 * 2 + 1
        smooth = F.avg_pool2d(
            F.pad(self.importance[:, None], (side // 2,) * 4, mode="replicate"), side, 1
        )
        # Opaque from the 95th percentile on, as in MACO: a few bright spots do not hide the rest.
        opaque = smooth.flatten(1).quantile(0.95, dim=1).clamp_min(1e-12)
        opacity = (smooth / opaque.view(-1, 1, 1, 1)).clamp(0, 1)
        return torch.cat([self.images.expand(-1, 3, -1, -1), opacity], 1)

    @classmethod
    def join(cls, parts: list[Result]) -> Result:
        """Concatenate the results of several batches.

        If batches ended at different steps (Ctrl-C, an early stop), shorter histories are padded
        with NaN.
        """
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        steps = max(len(p.history) for p in parts)
        failures, offset = {}, 0
        for part in parts:
            failures.update({offset + i: why for i, why in part.failures.items()})
            offset += len(part)
        return dataclasses.replace(
            first,
            images=torch.cat([p.images for p in parts]),
            scores=torch.cat([p.scores for p in parts]),
            history=torch.cat([_lengthen(p.history, steps) for p in parts], dim=1),
            objectives=[o for p in parts for o in p.objectives],
            seeds=[s for p in parts for s in p.seeds],
            failures=failures,
            redirected=_cat([p.redirected for p in parts]),
            reached=_cat([p.reached for p in parts]),
            checkpoint=None,
            importance=_cat([p.importance for p in parts]),
            state={n: torch.cat([p.state[n] for p in parts]) for n in first.state},
            interrupted=any(p.interrupted for p in parts),
        )


def _cat(parts: list[Tensor | None]) -> Tensor | None:
    present = [p for p in parts if p is not None]
    return torch.cat(present) if len(present) == len(parts) else None


def _lengthen(history: Tensor, steps: int) -> Tensor:
    missing = history.new_full((steps - len(history), history.shape[1]), math.nan)
    return torch.cat([history, missing])


def slug(text: str) -> str:
    """Return a readable, portable and unique file name for the text of an objective.

    ``channel:a:3`` becomes ``channel-a-3``, its negative ``negative-channel-a-3``; a checksum is
    appended wherever replacing characters would lose information.
    """
    plain = re.fullmatch(r"(-?)([a-z]\w*(?::[\w.]+)+)", text, re.ASCII)
    if plain and len(text) <= 80:
        return ("negative-" if plain[1] else "") + plain[2].replace(":", "-")
    name = re.sub(r"[^\w.]+", "-", text, flags=re.ASCII).strip("-.")[:80]
    return f"{name}-{zlib.crc32(text.encode()):08x}"
