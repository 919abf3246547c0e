"""The stages of a check; each builds on those before it, and Ctrl-C may end any of them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from featviz.checks import judges as judging
from featviz.checks import path, strength
from featviz.checks import randomization as randomized
from featviz.checks.result import Check
from featviz.checks.sheet import Shown
from featviz.checks.verdicts import NAMES, Criterion, unmeasured
from featviz.dataset_examples.api import examples
from featviz.dataset_examples.result import Examples
from featviz.errors import FeatvizError, FeatvizWarning, OptimizationError
from featviz.io.dataset import Dataset
from featviz.networks.model import Model
from featviz.objectives import Objective, per_sample
from featviz.optim.callbacks import Callback, Step
from featviz.optim.evaluator import scores
from featviz.optim.result import Result
from featviz.optim.settings import Settings
from featviz.rendering import held_out as held_out_views
from featviz.rendering.api import render
from featviz.types import Tensor

_NO_IMAGES = "no images were given"
#: The seed of what all images are compared with, whatever their own and those beside them.
ONCE = 0


@dataclasses.dataclass
class CheckRunner:
    """What is checked about ``goals``, and what was measured so far.

    ``subjects`` are the objectives by which images are judged; ``firsts`` the seed of each
    objective's first image, ``given`` those images where they exist already.
    """

    model: Model
    goals: list[Objective]
    subjects: list[Objective]
    firsts: list[int]
    seeds: int
    k: int
    images: Dataset | None
    panel: judging.Panel
    randomize: bool
    settings: Settings
    batch_size: int | None = None
    callbacks: Sequence[Callback | Callable[[Step], Any]] = ()
    progress: bool = False
    given: Tensor | None = None
    #: How many images were seen.
    count: int = 0

    def __post_init__(self) -> None:
        self.found: list[dict[str, Criterion]] = [{} for _ in self.goals]
        self.company: list[dict[str, tuple[Shown, ...]]] = []
        self.failures: dict[int, str] = {}

    def run(self) -> bool:
        """Go through all stages; return whether Ctrl-C came."""
        try:
            self._render()
            self._disturb()
            self._ask()
            if self.images is not None:
                self._travel(self._compare(self.images))
            if self.randomize:
                self._randomize()
        except KeyboardInterrupt:
            return True
        return False

    def checks(self) -> Iterator[Check]:
        """Yield what was found of each objective that has its pictures."""
        absent = {} if self.images is not None else dict.fromkeys(("strength", "path"), _NO_IMAGES)
        absent |= {} if self.randomize else {"randomized": "it was not asked for"}
        for i, company in enumerate(self.company):
            why = self.failures.get(i)
            criteria = tuple(
                unmeasured(name, why)
                if why is not None
                else self.found[i].get(name) or unmeasured(name, absent.get(name, "interrupted"))
                for name in NAMES
            )
            value = company["picture"][0].value
            yield Check(str(self.goals[i]), self.firsts[i], value, criteria, company)

    def _score(self, members: list[Objective], pictures: Tensor) -> Tensor:
        return scores(self.model, _each(members), pictures)

    def _render(self) -> None:
        """Make the images of all seeds and the negative of each objective, side by side."""
        goals, seeds = [], []
        for goal, subject, first in zip(self.goals, self.subjects, self.firsts, strict=True):
            goals += [goal] * self.seeds + [goal - 2 * subject]
            seeds += [*range(first, first + self.seeds), first]
        made = self._rendered(self.model, goals, seeds)
        each = self.seeds + 1
        here = len(made) // each  # fewer than asked for where Ctrl-C ended a batch
        pictures = made.images[: here * each].unflatten(0, (here, each)) if here else made.images
        if self.given is not None and here:
            pictures[:, 0] = self.given[:here]
        self.pictures = pictures
        subjects = self.subjects[:here]
        if here:
            flat = self._score([s for s in subjects for _ in range(each)], pictures.flatten(0, 1))
            self.values = flat.unflatten(0, (here, each))
        for i in range(here):
            rows = [float(v) for v in self.values[i]]
            seeded = [
                Shown(pictures[i, n], f"seed {self.firsts[i] + n}: {rows[n]:.4g}", rows[n])
                for n in range(self.seeds)
            ]
            negative = Shown(pictures[i, -1], f"negative: {rows[-1]:.4g}", rows[-1])
            self.company.append(
                {"picture": (seeded[0],), "seeds": (*seeded[1:],), "negative": (negative,)}
            )
            # The image itself; that another seed or the negative failed is seen in the figures.
            if i * each in made.failures:
                self.failures[i] = made.failures[i * each]
        if made.interrupted:
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

    def _quietly(self, twin: Model) -> Result:
        """Render on a randomized network, and keep to the result what fails on purpose."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FeatvizWarning)
            try:
                return self._rendered(twin, self.goals, self.firsts)
            except OptimizationError as error:
                return error.result

    def _disturb(self) -> None:
        """Measure what remains in held-out views, and how far the seeds differ."""
        first, subjects = self.pictures[:, 0], _each(self.subjects)
        shifted = [seed + held_out_views.APART for seed in self.firsts]
        self.base = strength.ground(self.model, subjects, first, shifted)
        held = held_out_views.held_out(self.model, subjects, first, shifted)
        for i, found in enumerate(self.found):
            base, values = float(self.base[i]), self.values[i, : self.seeds].tolist()
            found["held_out"] = strength.kept(values[0], base, float(held[i]))
            alike = randomized.among(self.pictures[i, : self.seeds])
            negative = float(self.values[i, -1])
            found["seeds"] = strength.steady(values, base, negative=negative, **alike)

    def _ask(self) -> None:
        """Ask the judges, and the network itself."""
        first = self.pictures[:, 0]
        if not self.panel.judges:
            for found in self.found:
                found["judges"] = unmeasured("judges", self.panel.why)
            return
        own = judging.probabilities(self.model, first)
        others = {n: judging.probabilities(j, first) for n, j in self.panel.judges.items()}
        for i, found in enumerate(self.found):
            wanted = judging.wanted_class(self.model, self.subjects[i])
            seen = {name: table[i] for name, table in others.items()}
            found["judges"] = judging.opinion(self.model, self.panel, wanted, own[i], seen)

    def _compare(self, dataset: Dataset) -> Examples:
        """Go through the images; compare the image's score with theirs."""
        made = examples(
            self.model,
            dataset,
            self.subjects,
            k=self.k,
            sample=path.DRAWN,
            seed=ONCE,
            precision=self.settings.precision,
            progress=self.progress,
        )
        self.count = made.count
        quantiles = made.statistics.quantiles([q / 1000 for q in range(1001)])
        for i, found in enumerate(self.found):
            best = float(made.top.values[i, 0])
            value = float(self.values[i, 0])
            found["strength"] = strength.against(value, best, quantiles[i], made.count)
            for side, label in (("top", "highest"), ("bottom", "lowest")):
                self.company[i][side] = _gallery(made, i, side, label)
        if made.interrupted:
            raise KeyboardInterrupt
        return made

    def _travel(self, made: Examples) -> None:
        """Compare the ways of images and images through the network."""
        wanted = [path.layers(self.model, subject) for subject in self.subjects]
        infos = list({info.name: info for layers in wanted for info in layers}.values())
        tops = [[j for j in row if j >= 0] for row in made.top.indices.tolist()]
        order = sorted({j for row in tops for j in row} | set(made.drawn))
        place = {index: row for row, index in enumerate(order)}
        natural = path.profiles(self.model, torch.stack([made.cache[j] for j in order]), infos)
        own = path.profiles(self.model, self.pictures[:, 0], infos)
        for i, found in enumerate(self.found):
            top = [place[j] for j in tops[i]]
            others = [place[j] for j in made.drawn if j not in tops[i]]
            enough = min(len(top), len(others)) >= path.FEWEST
            ways = [
                path.way(n, own[n][i], natural[n][top], natural[n][others])
                for n in ([info.name for info in wanted[i]] if enough else [])
                if n in own and n in natural
            ]
            found["path"] = path.travelled(ways, len(top), len(others))

    def _randomize(self) -> None:
        """Render once more on a copy with permuted weights."""
        try:
            twin = randomized.permuted(self.model, ONCE)
            made = self._quietly(twin)
        except FeatvizError as error:
            for found in self.found:
                found["randomized"] = unmeasured("randomized", str(error))
            return
        if made.interrupted:
            raise KeyboardInterrupt
        reached = self._score(self.subjects, made.images)
        for i, found in enumerate(self.found):
            if i in made.failures:
                why = f"with permuted weights: {made.failures[i]}"
                found["randomized"] = unmeasured("randomized", why)
                continue
            value = float(reached[i])
            shown = Shown(made.images[i], f"permuted weights: {value:.4g}", value)
            self.company[i]["randomized"] = (shown,)
            found["randomized"] = randomized.compare(
                self.pictures[i, 0],
                made.images[i],
                score=float(self.values[i, 0]),
                base=float(self.base[i]),
                reached=value,
                seeds=self.pictures[i, : self.seeds],
            )


def _each(members: list[Objective]) -> Objective:
    return members[0] if len(members) == 1 else per_sample(members)


def _gallery(made: Examples, unit: int, side: str, label: str) -> tuple[Shown, ...]:
    ranked = made.ranked(side)
    shown = []
    for rank, image in enumerate(made.images(unit, side)):
        value = float(ranked.values[unit, rank])
        name = made.sources[int(ranked.indices[unit, rank])]
        short = f"{value:.4g}, {name.rpartition('/')[2]}"
        shown.append(Shown(image, short if rank else f"{label} {short}", value, name))
    return tuple(shown)
