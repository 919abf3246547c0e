"""What an attack returns: the pictures, whether they fool the network, and at what cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from featviz.errors import FeatvizError
from featviz.io import images as _images
from featviz.optim.result import Result
from featviz.types import Tensor

try:
    from typing import Self
except ImportError:  # Python 3.10
    from typing_extensions import Self

_PER_SAMPLE = ("originals", "success", "before", "after", "norm", "eps", "steps_used")


@dataclasses.dataclass(kw_only=True)
class AttackResult(Result):
    """Attacked pictures; what follows beside a :class:`Result`'s is one value a picture.

    Attributes
    ----------
    originals
        (B, C, *size): what was attacked; rounded to 8 bits where the result is.
    success
        (B,): whether the finished picture does what was asked for. For classes: it is put into
        ``to``, or no longer into ``away``; for other objectives: the score is above the original's.
    before, after
        (B,): the predicted class of the original and of the result; -1 where there are none.
    norm
        (B,): the norm of the difference, in image units.
    eps
        (B,): the radius that was allowed, or with ``eps="min"`` the smallest that succeeded, and
        infinity where none did.
    steps_used
        (B,): updates until success, or all.
    eight_bit
        Whether the pictures are those that an 8-bit file holds, so that success is the file's.
    seconds
        How long it took.
    """

    originals: Tensor
    success: Tensor
    before: Tensor
    after: Tensor
    norm: Tensor
    eps: Tensor
    steps_used: Tensor
    eight_bit: bool
    seconds: float

    def __getitem__(self, index: int) -> Self:
        """Return the result of one picture."""
        i = range(len(self))[index]
        cut = {name: getattr(self, name)[i : i + 1] for name in _PER_SAMPLE}
        return dataclasses.replace(super().__getitem__(i), **cut)  # type: ignore[return-value]

    @property
    def record(self) -> dict[str, Any]:
        return {
            **{key: value for key, value in super().record.items() if key != "classes"},
            "success": self.success.tolist(),
            "before": self.before.tolist(),
            "after": self.after.tolist(),
            "norm_reached": self.norm.tolist(),
            "eps": [e if e < torch.inf else None for e in self.eps.tolist()],
            "steps_used": self.steps_used.tolist(),
        }

    @property
    def labels(self) -> list[str]:
        """One line a picture: what it was, what it is, and how far it went."""
        classes: list[str] | None = self.settings.get("classes")

        def name(number: int) -> str:
            return classes[number] if classes else f"class {number}"

        found = []
        rows = (self.before, self.after, self.success, self.norm)
        for was, now, ok, far in zip(*(row.tolist() for row in rows), strict=True):
            size = f"{far * 255:.3g}/255" if self.settings["norm"] == "linf" else f"{far:.3g}"
            change = f"{name(was)} -> {name(now)}, " if was >= 0 else ""
            found.append(f"{change}{'' if ok else 'not '}fooled, {self.settings['norm']} {size}")
        return found

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
        """Write a sheet: a row for each picture with the original, the difference, the result.

        The difference is enlarged about gray, by what the label says. With ``separate`` each
        result also gets a file of its own, without any label: ``out.0.png``, ``out.1.png``, …

        Raises
        ------
        FeatvizError
            If 8 bits cannot hold the pictures, or the file cannot be written.
        """
        self._check_eight_bit()
        path = Path(path)
        page = _images.sheet(*self._sheet(), columns=columns or 3)
        written = [_images.save(page, path, self.record)]
        if separate:
            for i in range(len(self)):
                place = path.with_name(f"{path.stem}.{i}{path.suffix}")
                written.append(_images.save(_images.to_pil(self.images[i]), place, self[i].record))
        return written

    def _check_eight_bit(self) -> None:
        if not self.eight_bit:
            raise FeatvizError(
                "8 bits do not hold these differences: attack with eps of at least 1/255 and "
                "eight_bit=True, or keep result.images with torch.save"
            )

    def _sheet(self) -> tuple[Tensor, list[str]]:
        delta = self.images - self.originals
        largest = delta.flatten(1).abs().amax(1).clamp_min(1e-12)
        factors = (0.5 / largest).floor().clamp_min(1)
        shown = 0.5 + delta * factors.view(-1, *(1,) * (delta.ndim - 1))
        rows = torch.stack([self.originals, shown, self.images], 1).flatten(0, 1)
        labels = []
        for text, factor in zip(self.labels, factors.tolist(), strict=True):
            labels += ["original", f"difference x{factor:.0f}", text]
        return rows, labels

    def _repr_png_(self) -> bytes:
        self._check_eight_bit()
        return _images.png_bytes(_images.sheet(*self._sheet(), columns=3), self.record)
