"""Anchors: the few segments of an image that hold the predicted class whatever the rest shows."""

from __future__ import annotations

import dataclasses
import math

import torch

from featviz.attribution.baselines import baseline as make_baseline
from featviz.attribution.baselines import grid
from featviz.attribution.labelled_images import checked_images
from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.optim.collecting import logits_layer, predicted_classes
from featviz.process_state import shielded
from featviz.seeds import generator
from featviz.types import Tensor
from featviz.validation import positive_int

#: Samples of a candidate before any is compared, and of each of two candidates in a comparison.
_FIRST, _MORE = 16, 16
#: Comparisons of a level at most.
_COMPARISONS = 60


@dataclasses.dataclass(frozen=True)
class Anchor:
    """A rule "if these segments are seen, the class is ``label``". [Ribeiro2018]_.

    Attributes
    ----------
    label
        The class that the network predicts for the image.
    segments
        The segments of the rule, in increasing order; none if the class never changes.
    region
        (*size): true on them.
    precision, bounds
        The share of the samples with these segments that have the class, of those that had no part
        in the search, and its confidence bounds.
    coverage
        The share of all samples that show these segments.
    holds
        Whether the lower bound reaches the precision that was asked for.
    samples
        Images that went through the network.
    """

    label: int
    segments: tuple[int, ...]
    region: Tensor
    precision: float
    bounds: tuple[float, float]
    coverage: float
    holds: bool
    samples: int


@shielded
def anchor(
    model: Model,
    image: Tensor,
    *,
    segments: Tensor | None = None,
    cells: int = 7,
    baseline: str | float | Tensor = "blur",
    precision: float = 0.95,
    confidence: float = 0.9,
    largest: int = 8,
    beam: int = 2,
    most: int = 400,
    seed: int = 0,
    batch_size: int | None = None,
) -> Anchor:
    """Return the smallest set of segments of ``image`` (C, *size) that holds the predicted class.

    A sample shows each segment with probability one half, and those of the rule always; the
    others are ``baseline``, or another of the images (N, C, *size) given as such. Rules grow by a
    segment at a time; at each size the ``beam`` most precise go on, which KL-LUCB finds with few
    samples. As segments are shown independently, rules of a size have the same coverage, so that
    the first that holds has the most. Whether one holds is decided by ``most`` samples of its own,
    which had no part in choosing it; tests that are repeated share the error that is allowed.

    Parameters
    ----------
    segments
        (*size), whole numbers; by default a grid of ``cells`` along the longer side.
    precision, confidence
        A rule holds if at least this share of its samples has the class, with this confidence.
    largest
        Segments of a rule at most; if none holds, the most precise is returned.
    most
        Samples of a rule at most.

    Raises
    ------
    FeatvizError
        If the network has no class logits, or an argument does not fit.
    """
    (image,) = checked_images(model, image[None] if hasattr(image, "shape") else image, "image")
    for name, value in (("largest", largest), ("beam", beam), ("most", most)):
        positive_int(name, value)
    for name, share in (("precision", precision), ("confidence", confidence)):
        if not 0 < share < 1:
            raise FeatvizError(f"{name} must be between 0 and 1, not {share}")
    search = _Search(
        model, image, segments, cells, baseline, 1 - confidence, most, seed, batch_size
    )
    survivors = [_Rule(())]
    test = search.tested(survivors[0])
    best = survivors[0]
    for _ in range(min(largest, search.count)):
        if test.holds(precision):
            break
        candidates = {
            tuple(sorted({*old.segments, new})) for old in survivors for new in range(search.count)
        }
        arms = [_Rule(c) for c in sorted(candidates) if len(c) > len(survivors[0].segments)]
        survivors = search.most_precise(arms, beam)
        for rule in survivors:
            search.settle(rule, precision)
        best = max([*survivors, best], key=lambda rule: rule.lower(search.level))
        if best.lower(search.level) >= precision and test.rule.segments != best.segments:
            test = search.tested(best)
    if test.rule.segments != best.segments:
        test = search.tested(best)
    return search.result(test, precision)


@dataclasses.dataclass
class _Rule:
    """A set of segments, and how many of its samples had the class."""

    segments: tuple[int, ...]
    drawn: int = 0
    right: int = 0

    @property
    def mean(self) -> float:
        return self.right / max(1, self.drawn)

    def lower(self, level: float) -> float:
        return _bound(self.mean, level / max(1, self.drawn), 0.0)

    def upper(self, level: float) -> float:
        return _bound(self.mean, level / max(1, self.drawn), 1.0)


@dataclasses.dataclass(frozen=True)
class _Test:
    """Samples of a rule that had no part in choosing it, and the level of its bounds."""

    rule: _Rule
    level: float

    def holds(self, precision: float) -> bool:
        return self.rule.lower(self.level) >= precision


class _Search:
    """Samples of an image, and the rules that were tried."""

    def __init__(
        self,
        model: Model,
        image: Tensor,
        segments: Tensor | None,
        cells: int,
        baseline: str | float | Tensor,
        error: float,
        most: int,
        seed: int,
        batch_size: int | None,
    ) -> None:
        size = tuple(image.shape[1:])
        labels = grid(size, positive_int("cells", cells)) if segments is None else segments
        if tuple(labels.shape) != size or labels.is_floating_point():
            raise FeatvizError(f"segments must be whole numbers of shape {size}")
        self.labels = labels.unique(return_inverse=True)[1].cpu()
        self.count = int(self.labels.max()) + 1
        several = isinstance(baseline, torch.Tensor) and baseline.ndim == image.ndim + 1
        if several and not len(baseline):  # type: ignore[arg-type]
            raise FeatvizError("baseline: give at least one image")
        shape = (
            len(baseline) if isinstance(baseline, torch.Tensor) and several else 1,
            *image.shape,
        )
        self.image = image.detach().cpu()
        self.others = make_baseline(baseline, self.image.expand(shape))
        layer = logits_layer(model, size)
        if layer is None:
            raise FeatvizError("anchors are of classes, and the network has no class logits")
        self.model, self.layer, self.batch_size = model, layer, batch_size
        self.label = int(predicted_classes(model, self.image[None], layer)[0])
        self.error, self.tests = error, 0
        self.level, self.most = math.log(1 / error), most
        self.rng, self.samples = generator(seed, "anchors"), 0

    def draw(self, rule: _Rule, count: int) -> None:
        """Add ``count`` samples of a rule, or as many as it may still have."""
        count = min(count, self.most - rule.drawn)
        if count <= 0:
            return
        shown = torch.rand(count, self.count, generator=self.rng) < 0.5
        shown[:, list(rule.segments)] = True
        other = torch.randint(len(self.others), (count,), generator=self.rng)
        visible = shown[:, self.labels][:, None]
        images = torch.where(visible, self.image, self.others[other])
        classes = predicted_classes(self.model, images, self.layer, batch_size=self.batch_size)
        rule.drawn += count
        rule.right += int((classes == self.label).sum())
        self.samples += count

    def most_precise(self, rules: list[_Rule], beam: int) -> list[_Rule]:
        """Return the ``beam`` rules of the highest precision: KL-LUCB."""
        for rule in rules:
            self.draw(rule, _FIRST)
        for _ in range(_COMPARISONS):
            rules.sort(key=lambda rule: -rule.mean)
            if len(rules) <= beam:
                break
            weakest = min(rules[:beam], key=lambda rule: rule.lower(self.level))
            rival = max(rules[beam:], key=lambda rule: rule.upper(self.level))
            done = weakest.drawn >= self.most and rival.drawn >= self.most
            if done or rival.upper(self.level) - weakest.lower(self.level) < 0.1:
                break
            self.draw(weakest, _MORE)
            self.draw(rival, _MORE)
        rules.sort(key=lambda rule: -rule.mean)
        return rules[:beam]

    def settle(self, rule: _Rule, precision: float) -> None:
        """Sample a rule until it is clear whether it holds."""
        while rule.drawn < self.most:
            if rule.lower(self.level) >= precision or rule.upper(self.level) < precision:
                return
            self.draw(rule, _MORE)

    def tested(self, rule: _Rule) -> _Test:
        """Draw new samples of a rule; the errors of all tests together are at most ``error``."""
        self.tests += 1
        level = math.log(self.tests * (self.tests + 1) / self.error)  # Σ 1 / n (n + 1) = 1
        fresh = _Rule(rule.segments)
        self.draw(fresh, self.most)
        return _Test(fresh, level)

    def result(self, test: _Test, precision: float) -> Anchor:
        rule = test.rule
        lower, upper = rule.lower(test.level), rule.upper(test.level)
        return Anchor(
            label=self.label,
            segments=rule.segments,
            region=torch.isin(self.labels, torch.tensor(rule.segments, dtype=torch.long)),
            precision=rule.mean,
            bounds=(lower, upper),
            coverage=0.5 ** len(rule.segments),
            holds=lower >= precision,
            samples=self.samples,
        )


def _bound(mean: float, divergence: float, end: float) -> float:
    """Return the q between a mean and 0 or 1 whose Bernoulli divergence from it is as given."""
    inside, outside = mean, end
    for _ in range(40):
        middle = (inside + outside) / 2
        if _divergence(mean, middle) <= divergence:
            inside = middle
        else:
            outside = middle
    return inside


def _divergence(p: float, q: float) -> float:
    q = min(max(q, 1e-12), 1 - 1e-12)
    first = p * math.log(p / q) if p > 0 else 0.0
    second = (1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0
    return first + second
