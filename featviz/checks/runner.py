"""The stages of a check; each builds on those before it, and Ctrl-C may end any of them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from featviz.checks import judges, randomization, strength
from featviz.checks.natural_images import ONCE, NaturalImages
from featviz.checks.result import Check
from featviz.checks.sheet import SheetImage
from featviz.checks.verdicts import NAMES, Criterion, not_measured
from featviz.errors import FeatvizError, FeatvizWarning, OptimizationError
from featviz.io.dataset import Dataset
from featviz.networks.model import Model
from featviz.objectives import Objective, per_sample
from featviz.optim.callbacks import Callback, Step
from featviz.optim.evaluator import scores
from featviz.optim.result import Result
from featviz.optim.settings import Settings
from featviz.rendering import held_out
from featviz.rendering.api import render
from featviz.types import Tensor

_NO_IMAGES = "no images were given"
#: What is measured by natural images.
_BY_IMAGES = ("strength", "interpretability", "path")


@dataclasses.dataclass
class CheckRunner:
    """Runs the stages of the checks of ``goals`` and holds what was measured so far.

    ``subjects`` are the objectives by which images are scored; ``firsts`` the seed of each
    objective's first image, ``given`` those images if they exist already.
    """

    model: Model
    goals: list[Objective]
    subjects: list[Objective]
    firsts: list[int]
    seeds: int
    k: int
    images: Dataset | None
    panel: judges.Panel
    randomize: bool
    settings: Settings
    batch_size: int | None = None
    callbacks: Sequence[Callback | Callable[[Step], Any]] = ()
    progress: bool | None = None
    given: Tensor | None = None
    #: How many dataset images were seen.
    count: int = 0

    def __post_init__(self) -> None:
        self.criteria: list[dict[str, Criterion]] = [{} for _ in self.goals]
        self.company: list[dict[str, tuple[SheetImage, ...]]] = []
        self.failures: dict[int, str] = {}

    def run(self) -> bool:
        """Run all stages; return whether Ctrl-C interrupted them."""
        try:
            self._render()
            self._test_robustness()
            self._ask_judges()
            if self.images is not None:
                self._compare_with_dataset(self.images)
            if self.randomize:
                self._randomize()
        except KeyboardInterrupt:
            return True
        return False

    def checks(self) -> Iterator[Check]:
        """Yield the check of each objective whose images were rendered."""
        reasons = dict.fromkeys(_BY_IMAGES, _NO_IMAGES) if self.images is None else {}
        reasons |= {} if self.randomize else {"randomized": "not requested"}
        for i, company in enumerate(self.company):
            why = self.failures.get(i)
            criteria = tuple(
                not_measured(name, why)
                if why is not None
                else self.criteria[i].get(name)
                or not_measured(name, reasons.get(name, "interrupted"))
                for name in NAMES
            )
            value = company["picture"][0].value
            yield Check(str(self.goals[i]), self.firsts[i], value, criteria, company)

    def _score(self, objectives: list[Objective], images: Tensor) -> Tensor:
        return scores(self.model, _batched(objectives), images)

    def _render(self) -> None:
        """Render the images of all seeds and the negative of each objective side by side."""
        goals, seeds = [], []
        for goal, subject, first in zip(self.goals, self.subjects, self.firsts, strict=True):
            goals += [goal] * self.seeds + [goal - 2 * subject]
            seeds += [*range(first, first + self.seeds), first]
        result = self._rendered(self.model, goals, seeds)
        group = self.seeds + 1
        count = len(result) // group  # fewer than requested if Ctrl-C ended a batch
        images = (
            result.images[: count * group].unflatten(0, (count, group)) if count else result.images
        )
        if self.given is not None and count:
            images[:, 0] = self.given[:count]
        self.rendered = images
        subjects = self.subjects[:count]
        if count:
            scores = self._score([s for s in subjects for _ in range(group)], images.flatten(0, 1))
            self.scores = scores.unflatten(0, (count, group))
        for i in range(count):
            row = [float(v) for v in self.scores[i]]
            by_seed = [
                SheetImage(images[i, n], f"seed {self.firsts[i] + n}: {row[n]:.4g}", row[n])
                for n in range(self.seeds)
            ]
            negative = SheetImage(images[i, -1], f"negative: {row[-1]:.4g}", row[-1])
            self.company.append(
                {"picture": (by_seed[0],), "seeds": (*by_seed[1:],), "negative": (negative,)}
            )
            # The image itself; failures of other seeds or the negative show in the figures.
            if i * group in result.failures:
                self.failures[i] = result.failures[i * group]
        if result.interrupted:
            raise KeyboardInterrupt

    def _rendered(self, model: Model, goals: list[Objective], seeds: list[int]) -> Result:
        return render(
            model,
            goals,
            settings=self.settings,
            seed=seeds,
            batch_size=self.batch_size,
            callbacks=self.callbacks,
            progress=self.progress,
        )

    def _render_randomized(self, model: Model) -> Result:
        """Render on a permuted network, keeping expected failures to the result."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FeatvizWarning)
            try:
                return self._rendered(model, self.goals, self.firsts)
            except OptimizationError as error:
                return error.result

    def _test_robustness(self) -> None:
        """Measure the score in held-out views, and how much the seeds differ."""
        images, subjects = self.rendered[:, 0], _batched(self.subjects)
        shifted_seeds = [seed + held_out.SEED_OFFSET for seed in self.firsts]
        self.scrambled = strength.scrambled_score(self.model, subjects, images, shifted_seeds)
        held = held_out.held_out(self.model, subjects, images, shifted_seeds)
        for i, criteria in enumerate(self.criteria):
            scrambled, values = float(self.scrambled[i]), self.scores[i, : self.seeds].tolist()
            criteria["held_out"] = strength.held_out_criterion(values[0], scrambled, float(held[i]))
            similarity = randomization.among(self.rendered[i, : self.seeds])
            negative = float(self.scores[i, -1])
            criteria["seeds"] = strength.seeds_criterion(
                values, scrambled, negative=negative, **similarity
            )

    def _ask_judges(self) -> None:
        """Compare the class probabilities of the judges with those of the network itself."""
        images = self.rendered[:, 0]
        if not self.panel.judges:
            for criteria in self.criteria:
                criteria["judges"] = not_measured("judges", self.panel.why)
            return
        own = judges.probabilities(self.model, images)
        by_judge = {n: judges.probabilities(j, images) for n, j in self.panel.judges.items()}
        for i, criteria in enumerate(self.criteria):
            target = judges.target_class(self.model, self.subjects[i])
            probs = {name: table[i] for name, table in by_judge.items()}
            criteria["judges"] = judges.judges_criterion(
                self.model, self.panel, target, own[i], probs
            )

    def _compare_with_dataset(self, dataset: Dataset) -> None:
        """Find the top images of the dataset, and compare the rendered ones with them."""
        natural = NaturalImages.of(
            self.model,
            self.subjects,
            dataset,
            self.k,
            precision=self.settings.precision,
            progress=self.progress,
        )
        self.count = natural.found.count
        self._enter(natural.strengths(self.scores[:, 0]))
        for i, company in enumerate(self.company):
            for side, label in (("top", "highest"), ("bottom", "lowest")):
                company[side] = natural.sheet_images(i, side, label)
        if natural.found.interrupted:
            raise KeyboardInterrupt
        pictures, negatives = self.rendered[:, : self.seeds], self.rendered[:, -1:]
        self._enter(natural.interpretability(pictures, negatives, self.panel))
        self._enter(natural.paths(self.rendered[:, 0]))

    def _enter(self, found: Sequence[Criterion]) -> None:
        for criteria, criterion in zip(self.criteria, found, strict=True):
            criteria[criterion.name] = criterion

    def _randomize(self) -> None:
        """Render once more on a copy with permuted weights."""
        try:
            permuted = randomization.permuted(self.model, ONCE)
            result = self._render_randomized(permuted)
        except FeatvizError as error:
            for criteria in self.criteria:
                criteria["randomized"] = not_measured("randomized", str(error))
            return
        if result.interrupted:
            raise KeyboardInterrupt
        values = self._score(self.subjects, result.images)
        for i, criteria in enumerate(self.criteria):
            if i in result.failures:
                why = f"with permuted weights: {result.failures[i]}"
                criteria["randomized"] = not_measured("randomized", why)
                continue
            value = float(values[i])
            image = SheetImage(result.images[i], f"permuted weights: {value:.4g}", value)
            self.company[i]["randomized"] = (image,)
            criteria["randomized"] = randomization.compare(
                self.rendered[i, 0],
                result.images[i],
                score=float(self.scores[i, 0]),
                base=float(self.scrambled[i]),
                reached=value,
                seeds=self.rendered[i, : self.seeds],
            )


def _batched(objectives: list[Objective]) -> Objective:
    return objectives[0] if len(objectives) == 1 else per_sample(objectives)
