"""What an attack returns: the images, whether they fool the network, and at what cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from featviz.errors import FeatvizError
from featviz.io import images as _images
from featviz.io import sheets
from featviz.optim.result import Result
from featviz.types import Self, Tensor

_PER_SAMPLE = ("originals", "success", "before", "after", "norm", "eps", "steps_used")


@dataclasses.dataclass(kw_only=True)
class AttackResult(Result):
    """Attacked images; what follows beside a :class:`Result`'s is one value an image.

    Attributes
    ----------
    originals
        (B, C, *size): what was attacked; rounded to 8 bits where the result is.
    success
        (B,): whether the finished image does what was asked for. For classes: it is put into
        ``to``, or no longer into ``away``; for other objectives: the score is above the original's.
    before, after
        (B,): the predicted class of the original and of the result; -1 where there are none.
    norm
        (B,): the norm of the difference, in image units.
    norm_kind
        ``linf``, ``l2`` or ``l1``; ``patch`` where the whole range of values was allowed.
    eps
        (B,): the radius that was allowed, or with ``eps="min"`` the smallest that succeeded, and
        infinity where none did.
    steps_used
        (B,): updates until success, or all.
    eight_bit
        Whether the images are those that an 8-bit file holds, so that success is the file's.
    classes
        The names of the network's classes, where it has some.
    seconds
        How long it took.
    """

    originals: Tensor
    success: Tensor
    before: Tensor
    after: Tensor
    norm: Tensor
    norm_kind: str
    eps: Tensor
    steps_used: Tensor
    eight_bit: bool
    classes: Sequence[str] | None
    seconds: float

    def __getitem__(self, index: int) -> Self:
        """Return the result of one picture."""
        i = range(len(self))[index]
        cut = {name: getattr(self, name)[i : i + 1] for name in _PER_SAMPLE}
        return dataclasses.replace(super().__getitem__(i), **cut)  # type: ignore[return-value]

    @property
    def record(self) -> dict[str, Any]:
        return {
            **super().record,
            "success": self.success.tolist(),
            "before": self.before.tolist(),
            "after": self.after.tolist(),
            "norm_reached": self.norm.tolist(),
            "eps": [e if e < torch.inf else None for e in self.eps.tolist()],
            "steps_used": self.steps_used.tolist(),
        }

    @property
    def labels(self) -> list[str]:
        """One line an image: what it was, what it is, and how far it went."""

        def name(number: int) -> str:
            return self.classes[number] if self.classes else f"class {number}"

        labels = []
        rows = (self.before, self.after, self.success, self.norm)
        for before, after, success, norm in zip(*(row.tolist() for row in rows), strict=True):
            change = f"{name(before)} -> {name(after)}, " if before >= 0 else ""
            size = f"{norm * 255:.3g}/255" if self.norm_kind == "linf" else f"{norm:.3g}"
            length = "" if self.norm_kind == "patch" else f", {self.norm_kind} {size}"
            labels.append(f"{change}{'' if success else 'not '}fooled{length}")
        return labels

    @property
    def patch(self) -> Tensor:
        """The patch (C, h, w) of :func:`featviz.patch_attack`, to be printed."""
        if "pixels" not in self.state:
            raise FeatvizError("this attack made no patch: fv.patch_attack does")
        return self.state["pixels"][0]

    def save(
        self,
        path: str | Path,
        *,
        columns: int | None = None,
        separate: bool = False,
        alpha: bool = False,
    ) -> list[Path]:
        """Write a sheet: a row for each image with the original, the difference, the result.

        The difference is enlarged about gray, by what the label says. With ``separate`` each
        result also gets a file of its own, without any label: ``out.0.png``, ``out.1.png``, …

        Raises
        ------
        FeatvizError
            If 8 bits cannot hold the images, or the file cannot be written.
        """
        path = Path(path)
        written = [_images.save(self.sheet(columns=columns), path, self.record)]
        if separate:
            for i in range(len(self)):
                place = path.with_name(f"{path.stem}.{i}{path.suffix}")
                written.append(_images.save(sheets.to_pil(self.images[i]), place, self[i].record))
        return written

    def _check_eight_bit(self) -> None:
        if not self.eight_bit:
            raise FeatvizError(
                "8 bits do not hold these differences: attack with eps of at least 1/255 and "
                "eight_bit=True, or keep result.images with torch.save"
            )

    def sheet(self, *, columns: int | None = None) -> Image.Image:
        self._check_eight_bit()
        delta = self.images - self.originals
        largest = delta.flatten(1).abs().amax(1).clamp_min(1e-12)
        factors = (0.5 / largest).floor().clamp_min(1)
        shown = 0.5 + delta * factors.view(-1, *(1,) * (delta.ndim - 1))
        rows = torch.stack([self.originals, shown, self.images], 1).flatten(0, 1)
        labels = []
        for text, factor in zip(self.labels, factors.tolist(), strict=True):
            labels += ["original", f"difference x{factor:.0f}", text]
        return sheets.sheet(rows, labels, columns=columns or 3)
