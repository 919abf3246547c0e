"""What one measure says of an image."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

OK, DOUBTFUL, NOT_MEASURED = "ok", "doubtful", "not measured"
#: All criteria, in the order in which they are reported.
NAMES = ("strength", "held_out", "judges", "randomized", "path", "seeds")


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A criterion with its verdict; docs/check.md says what each value and threshold mean.

    Attributes
    ----------
    name
        ``strength``, ``held_out``, ``judges``, ``randomized``, ``path`` or ``seeds``.
    verdict
        ``ok``, ``doubtful`` or ``not measured``.
    value
        The number that was judged; None where nothing was measured.
    threshold
        Where the verdict changes.
    highest
        Whether the value has to be at most the threshold; otherwise it has to reach it.
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
        """All of it, for JSON: numbers that are not finite are None."""
        return dataclasses.asdict(self) | {"figures": plain(self.figures)}

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name}: {self.verdict} ({self.why})"
        sign = "<=" if self.highest else ">="
        wanted = f"{self.value:.2f} (wanted {sign} {self.threshold:g})"
        return f"{self.name}: {self.verdict}, {wanted}, {self.why}"


#: The thresholds, and whether they are the most that is allowed; docs/check.md has the reasons.
THRESHOLDS: dict[str, tuple[float, bool]] = {
    "strength": (1.0, False),
    "held_out": (0.75, False),
    "judges": (0.5, False),
    "randomized": (0.5, True),
    "path": (0.2, False),
    "seeds": (0.5, False),
}


def judged(name: str, value: float, why: str, **figures: Any) -> Criterion:
    """Return the criterion for a value; one that is not finite is not measured.

    >>> print(judged("seeds", 0.9, "the lowest score of 3 seeds"))
    seeds: ok, 0.90 (wanted >= 0.5), the lowest score of 3 seeds
    """
    threshold, highest = THRESHOLDS[name]
    if not math.isfinite(value):
        return unmeasured(name, why, **figures)
    fine = value <= threshold if highest else value >= threshold
    return Criterion(name, OK if fine else DOUBTFUL, value, threshold, highest, why, figures)


def doubted(name: str, why: str, **figures: Any) -> Criterion:
    """Return a criterion that fails without a value, for a reason that needs none."""
    return Criterion(name, DOUBTFUL, None, *THRESHOLDS[name], why, figures)


def unmeasured(name: str, why: str, **figures: Any) -> Criterion:
    """Return a criterion that says why nothing was measured."""
    return Criterion(name, NOT_MEASURED, None, *THRESHOLDS[name], why, figures)


def overall(criteria: tuple[Criterion, ...]) -> str:
    """Say what was found in one line that claims no more than was measured."""
    by = {v: [c.name for c in criteria if c.verdict == v] for v in (OK, DOUBTFUL, NOT_MEASURED)}
    count = len(by[OK]) + len(by[DOUBTFUL])
    if not count:
        return f"nothing measured of {', '.join(by[NOT_MEASURED])}"
    words = [f"doubtful: {', '.join(by[DOUBTFUL])}"] if by[DOUBTFUL] else []
    if by[OK]:
        words.append(f"no doubt by {', '.join(by[OK])}")
    if by[NOT_MEASURED]:
        words.append(f"not measured: {', '.join(by[NOT_MEASURED])}")
    return "; ".join(words)


def plain(value: Any) -> Any:
    """Return a value for JSON: numbers that are not finite are None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value
