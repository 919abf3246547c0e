"""The criteria of a check, their thresholds and their verdicts."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

OK, DOUBTFUL, NOT_MEASURED = "ok", "doubtful", "not measured"
#: All criteria, in the order in which they are reported.
NAMES = (
    "strength", "held_out", "judges", "interpretability", "randomized", "path", "seeds"
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A criterion with its verdict; docs/check.md explains each value and threshold.

    Attributes
    ----------
    name
        ``strength``, ``held_out``, ``judges``, ``interpretability``, ``randomized``, ``path`` or
        ``seeds``.
    verdict
        ``ok``, ``doubtful`` or ``not measured``.
    value
        The number that was judged; None if nothing was measured.
    threshold
        The value at which the verdict changes.
    highest
        Whether the threshold is the highest value that is ok; otherwise it is the lowest.
    why
        What the value is, in a few words, or why there is none.
    figures
        Everything else that was measured, for JSON.
    """

    name: str
    verdict: str
    value: float | None
    threshold: float
    highest: bool
    why: str
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        """The fields, for JSON; numbers that are not finite are None."""
        return dataclasses.asdict(self) | {"figures": plain(self.figures)}

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name}: {self.verdict} ({self.why})"
        sign = "<=" if self.highest else ">="
        comparison = f"{self.value:.2f} (required: {sign} {self.threshold:g})"
        return f"{self.name}: {self.verdict}, {comparison}, {self.why}"


#: The thresholds, and whether they are upper limits; docs/check.md gives the reasons.
THRESHOLDS: dict[str, tuple[float, bool]] = {
    "strength": (1.0, False),
    "held_out": (0.75, False),
    "judges": (0.5, False),
    "interpretability": (0.6, False),
    "randomized": (0.5, True),
    "path": (0.2, False),
    "seeds": (0.5, False),
}


def judge(name: str, value: float, why: str, **figures: Any) -> Criterion:
    """Return the criterion for a value; one that is not finite is not measured.

    >>> print(judge("seeds", 0.9, "the lowest score of 3 seeds"))
    seeds: ok, 0.90 (required: >= 0.5), the lowest score of 3 seeds
    """
    threshold, highest = THRESHOLDS[name]
    if not math.isfinite(value):
        return not_measured(name, why, **figures)
    passed = value <= threshold if highest else value >= threshold
    return Criterion(name, OK if passed else DOUBTFUL, value, threshold, highest, why, figures)


def doubtful(name: str, why: str, **figures: Any) -> Criterion:
    """Return a criterion that fails without a value, for the reason given."""
    return Criterion(name, DOUBTFUL, None, *THRESHOLDS[name], why, figures)


def not_measured(name: str, why: str, **figures: Any) -> Criterion:
    """Return a criterion that was not measured, for the reason given."""
    return Criterion(name, NOT_MEASURED, None, *THRESHOLDS[name], why, figures)


def summarize(criteria: tuple[Criterion, ...]) -> str:
    """Return the verdicts in one line that claims no more than was measured."""
    names = {
        verdict: [c.name for c in criteria if c.verdict == verdict]
        for verdict in (OK, DOUBTFUL, NOT_MEASURED)
    }
    count = len(names[OK]) + len(names[DOUBTFUL])
    if not count:
        return f"nothing measured: {', '.join(names[NOT_MEASURED])}"
    parts = [f"doubtful: {', '.join(names[DOUBTFUL])}"] if names[DOUBTFUL] else []
    if names[OK]:
        parts.append(f"ok: {', '.join(names[OK])}")
    if names[NOT_MEASURED]:
        parts.append(f"not measured: {', '.join(names[NOT_MEASURED])}")
    return "; ".join(parts)


def plain(value: Any) -> Any:
    """Return a value for JSON: numbers that are not finite are None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value
