"""Gradient diagnostics: which samples cannot be optimized, and why."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.types import Tensor


class GradientDiagnostics:
    """Tracks which samples had a usable gradient and which became NaN, without synchronizing."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self.moved = torch.zeros(batch, dtype=torch.bool, device=device)
        self.first_bad_step = torch.full((batch,), -1, device=device)
        self.redirected = torch.zeros(batch, dtype=torch.bool, device=device)

    def update(
        self,
        index: int,
        scores: Tensor,
        gradients: Sequence[Tensor],
        scale: float,
        redirected: Tensor,
    ) -> Tensor:
        """Return the gradient norm (B,) of each sample; NaN where its score is not finite.

        ``gradients`` (B, …) are ``scale`` times the true ones.
        """
        total = torch.zeros(len(scores), device=scores.device)
        # The gradient of a parameter that all samples share counts for each of them.
        for gradient in gradients:
            total = total + torch.linalg.vector_norm(gradient.detach().flatten(1), dim=1).square()
        norms = total.sqrt() / scale
        norms = torch.where(scores.detach().isfinite(), norms, torch.nan)
        finite = norms.isfinite()
        self.moved |= finite & (norms > 0) & ~redirected
        self.redirected |= redirected
        self.first_bad_step = torch.where(
            (self.first_bad_step < 0) & ~finite, index, self.first_bad_step
        )
        return norms

    def all_stuck(self) -> bool:
        """Return whether no sample has had a usable gradient so far; synchronizes the device."""
        return not bool(self.moved.any())

    def failures(
        self, texts: list[str], scores: Tensor, settled: bool, opaque: str
    ) -> dict[int, str]:
        """Return the reasons why samples failed, by index.

        ``opaque`` says why the network has no gradient, if that is known.

        ``settled`` indicates whether any step ran without redirected ReLUs; if none did, a
        redirected gradient counts as usable.
        """
        if not settled:
            self.moved |= self.redirected
        reasons = {}
        columns = (self.moved.tolist(), self.first_bad_step.tolist(), scores.isfinite().tolist())
        for i, (moved, bad_step, finite) in enumerate(zip(*columns, strict=True)):
            if not finite or (not moved and bad_step >= 0):
                reasons[i] = (
                    f"objective {texts[i]} became NaN or infinite at step {max(bad_step, 0)}: "
                    "lower lr, or use precision fp32"
                )
            elif not moved:
                why = opaque or (
                    "the unit is dead or does not depend on the image; try another seed or a layer "
                    "before its ReLU"
                )
                reasons[i] = f"objective {texts[i]} has no gradient: {why}"
        return reasons
