"""Completeness: attributions that should add up to the difference that a baseline makes."""

from __future__ import annotations

import warnings

from featviz.attribution.case import Case
from featviz.errors import FeatvizWarning
from featviz.types import Tensor

#: A difference that is smaller than this share of the values themselves is as good as none.
NEGLIGIBLE = 0.01


def difference(case: Case) -> tuple[float, float]:
    """Return the objective's value on the image minus its mean on the baselines, and a scale.

    The scale is what deviations are measured by: the difference, or a hundredth of the values if
    that is more.
    """
    score = float(case.evaluator.scores(case.image).double())
    base = float(case.evaluator.scores(case.base).double().mean())
    return score - base, max(abs(score - base), NEGLIGIBLE * max(abs(score), abs(base)))


def warn_if_incomplete(case: Case, attributions: Tensor, method: str, remedy: str) -> None:
    """Warn if attributions do not add up within the case's ``tolerance``."""
    expected, scale = difference(case)
    delta = float(attributions.double().sum()) - expected
    if not abs(delta) <= case.options["tolerance"] * scale:  # also for NaN
        warnings.warn(
            f"{method} of {case.evaluator.objective} adds up to {expected + delta:.4g} instead of "
            f"{expected:.4g} (convergence delta {delta:.2g}): {remedy}",
            FeatvizWarning,
            stacklevel=2,
        )
