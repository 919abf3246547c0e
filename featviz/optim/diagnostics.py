"""What goes wrong while a picture is optimized, noted without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.types import Tensor


class Watch:
    """Notes, on the device and without waiting for it, which samples have a usable gradient."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self.moved = torch.zeros(batch, dtype=torch.bool, device=device)
        self.broken = torch.full((batch,), -1, device=device)  # the first step that was not finite
        self.redirected = torch.zeros(batch, dtype=torch.bool, device=device)

    def see(
        self,
        index: int,
        scores: Tensor,
        gradients: Sequence[Tensor],
        scale: float,
        redirected: Tensor,
    ) -> Tensor:
        """Return the norm of each sample's gradient (B,); NaN where the score is not finite."""
        total = torch.zeros(len(scores), device=scores.device)
        for gradient in gradients:  # a parameter that all samples share counts for each
            total = total + torch.linalg.vector_norm(gradient.detach().flatten(1), dim=1).square()
        norms = total.sqrt() / scale
        norms = torch.where(scores.detach().isfinite(), norms, torch.nan)
        finite = norms.isfinite()
        self.moved |= finite & (norms > 0) & ~redirected
        self.redirected |= redirected
        self.broken = torch.where((self.broken < 0) & ~finite, index, self.broken)
        return norms

    def hopeless(self) -> bool:
        """Tell whether no sample ever had a usable gradient; waits for the device."""
        return not bool(self.moved.any())

    def failures(self, texts: list[str], scores: Tensor, settled: bool) -> dict[int, str]:
        """Say for each sample that failed what happened to it.

        ``settled`` tells whether there were steps without redirected ReLUs; before, a gradient
        that came through them counts.
        """
        if not settled:
            self.moved |= self.redirected
        found = {}
        columns = (self.moved.tolist(), self.broken.tolist(), scores.isfinite().tolist())
        for i, (moved, broken, finite) in enumerate(zip(*columns, strict=True)):
            if not finite or (not moved and broken >= 0):
                found[i] = (
                    f"objective {texts[i]} became NaN or infinite at step {max(broken, 0)}: "
                    "lower lr, or use precision fp32"
                )
            elif not moved:
                found[i] = (
                    f"objective {texts[i]} has no gradient: the unit is dead or does not depend "
                    "on the image; try another seed or a layer before its ReLU"
                )
        return found
