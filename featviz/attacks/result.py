"""The result of an attack: the images, their success, and the size of the perturbation."""

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
from featviz.optim.base_result import row_of
from featviz.optim.result import Result
from featviz.types import Self, Tensor

_PER_SAMPLE = ("originals", "success", "before", "after", "norm", "eps", "steps_used")


@dataclasses.dataclass(kw_only=True, repr=False)
class AttackResult(Result):
    """Attacked images; a :class:`Result` with additional values for each image.

    Attributes
    ----------
    originals
        (B, C, *size): the attacked images; rounded to 8 bits if the results are.
    success
        (B,): whether the attack succeeded. For classes: the result is classified as ``to``, or no
        longer as ``away``; for other objectives: its score is higher than the original's.
    before, after
        (B,): the predicted class of the original and of the result; -1 without classes.
    norm
        (B,): the norm of the change from the given image, in image units. Where ``originals`` had
        to be rounded, rounding counts, and the norm may exceed ``eps`` by it.
    norm_kind
        ``linf``, ``l2`` or ``l1``; ``patch`` if the perturbation is not bounded by a norm, so that
        records leave ``norm`` and ``eps`` out.
    eps
        (B,): the allowed radius, or with ``eps="min"`` the smallest that succeeded, infinite if
        none did.
    steps_used
        (B,): updates until success, or the total number.
    eight_bit
        Whether the images are exactly representable in 8 bits, as in a saved file.
    classes
        The class names of the network, if it has any.
    seconds
        The duration of the attack.
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

    def __getitem__(self, index: int | slice) -> Self:
        if isinstance(index, slice):
            rows = range(len(self))[index]
            values = {name: getattr(self, name)[list(rows)] for name in _PER_SAMPLE}
            base = Result.__getitem__(self, index)
            return dataclasses.replace(base, **values)
        i = row_of(index, len(self))
        values = {name: getattr(self, name)[i : i + 1] for name in _PER_SAMPLE}
        return dataclasses.replace(super().__getitem__(i), **values)

    @property
    def record(self) -> dict[str, Any]:
        patch = self.norm_kind == "patch"
        return {
            **super().record,
            "success": self.success.tolist(),
            "before": self.before.tolist(),
            "after": self.after.tolist(),
            # A patch replaces pixels: how far they were from it says nothing.
            "norm_reached": [None if patch else n for n in self.norm.tolist()],
            "eps": [e if e < torch.inf and not patch else None for e in self.eps.tolist()],
            "steps_used": self.steps_used.tolist(),
        }

    @property
    def labels(self) -> list[str]:
        """One line per image: the class before and after, success, and the norm."""

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
        """The patch (C, h, w) of :func:`featviz.patch_attack`, for printing."""
        if "pixels" not in self.state:
            raise FeatvizError("this attack has no patch: use fv.patch_attack")
        return self.state["pixels"][0]

    def save(
        self,
        path: str | Path,
        *,
        columns: int | None = None,
        separate: bool = False,
        alpha: bool = False,
    ) -> list[Path]:
        """Write a sheet with one row per image: original, difference and result.

        The difference is amplified about gray, by the factor in its label. With ``separate``, each
        result is also written to an unlabelled file of its own: ``out.0.png``, ``out.1.png``, …

        Raises
        ------
        FeatvizError
            If 8 bits cannot represent the images, or the file cannot be written.
        """
        path = Path(path)
        written = [_images.save(self.sheet(columns=columns), path, self.record)]
        if separate:
            for i in range(len(self)):
                image_path = path.with_name(f"{path.stem}.{i}{path.suffix}")
                written.append(
                    _images.save(sheets.to_pil(self.images[i]), image_path, self[i].record)
                )
        return written

    def _check_eight_bit(self) -> None:
        if not self.eight_bit:
            raise FeatvizError(
                "8 bits cannot represent these perturbations: attack with eps at least 1/255 and "
                "eight_bit=True, or save result.images with torch.save"
            )

    def sheet(self, *, columns: int | None = None) -> Image.Image:
        self._check_eight_bit()
        delta = self.images - self.originals
        largest = delta.flatten(1).abs().amax(1).clamp_min(1e-12)
        factors = (0.5 / largest).floor().clamp_min(1)
        amplified = 0.5 + delta * factors.view(-1, *(1,) * (delta.ndim - 1))
        rows = torch.stack([self.originals, amplified, self.images], 1).flatten(0, 1)
        labels = []
        for text, factor in zip(self.labels, factors.tolist(), strict=True):
            labels += ["original", f"difference x{factor:.0f}", text]
        return sheets.sheet(rows, labels, columns=columns or 3)
