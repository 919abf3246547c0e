"""Whether the images of a unit tell another network which natural images excite it.

A two-alternative forced choice without people. [Zimmermann2024]_
"""

from __future__ import annotations

from collections.abc import Mapping

from featviz.checks.verdicts import Criterion, judge, not_measured
from featviz.dataset_examples.forced_choice import FEWEST, OTHERS, is_selection, score
from featviz.types import Tensor


def interpretability_criterion(
    by_judge: Mapping[str, Tensor], top: int, others: int, why: str = ""
) -> Criterion:
    """Judge how well other networks tell exciting images from others, by the margins (T, B)."""
    name = "interpretability"
    if not by_judge:
        return not_measured(name, why)
    if not is_selection(top, others):
        needed = max(FEWEST, top) * (OTHERS + 1)
        return not_measured(name, f"too few images: give at least {needed}, or a smaller k")
    scores = {n: score(m) for n, m in by_judge.items()}
    right = {
        n: float(((m > 0).double() + (m == 0).double() / 2).mean()) for n, m in by_judge.items()
    }
    value = sum(scores.values()) / len(scores)
    accuracy = sum(right.values()) / len(right)
    reason = (
        f"by the images, {len(right)} other network{'s' * (len(right) > 1)} tell the {top} highest "
        f"from the {top} lowest in {accuracy:.0%} of pairs"
    )
    return judge(name, value, reason, scores=scores, right=right, accuracy=accuracy)
