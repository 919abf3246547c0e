"""Can the picture be trusted? Renders it in company and asks all that is known against it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from featviz.checks.judges import panel
from featviz.checks.result import Checks
from featviz.checks.runner import Inquiry
from featviz.errors import FeatvizError, did_you_mean
from featviz.io.dataset import Dataset, Source
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives import objective as as_objective
from featviz.objectives.base import ONE, terms_of
from featviz.objectives.matching import BatchnormMatch
from featviz.objectives.penalties import L1, L2, Blur, BoundaryComplexity, Spectrum, TotalVariation
from featviz.optim.result import Result
from featviz.optim.settings import prepare
from featviz.seeds import expand
from featviz.types import Precision
from featviz.validation import positive_int

#: What keeps a picture calm and says nothing of a unit; a picture is judged without it.
PRIORS = (TotalVariation, L1, L2, Blur, BoundaryComplexity, Spectrum, BatchnormMatch)
#: What of a result's settings makes its pictures again.
_REPEATED = ("param", "transforms", "steps", "size", "lr", "redirect", "precision")


def check(
    model: Model,
    objective: Objective | str | Sequence[Objective | str] | None = None,
    *,
    result: Result | None = None,
    images: Dataset | None = None,
    judges: Sequence[str | Model] | None = None,
    seeds: int = 3,
    seed: int = 0,
    randomize: bool = True,
    k: int = 9,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    progress: bool = False,
    **settings: Any,
) -> Checks:
    """Render objectives and say, by six criteria, whether their pictures can be trusted.

    ``docs/check.md`` has the formula, the source and the threshold of each. All pictures of all
    objectives are made by one :func:`featviz.render`, those of the randomized network by a second,
    and the images are gone through once.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`.
    objective
        One objective or a list. Penalties in it shape the picture, and are left out where its
        score is judged.
    result
        Instead of objectives: finished pictures of :func:`featviz.render`, whose objectives, seeds
        and settings are taken over for their company.
    images
        A folder or data set as in :func:`featviz.examples`; without, ``strength`` and ``path``
        are not measured.
    judges
        Networks with the same class names, by name or as models; by default, of an embedded
        network, its siblings.
    seeds
        How many pictures are made of each objective, with ``seed``, ``seed + 1``, ….
    seed
        The seed of the picture that is judged.
    randomize
        Whether to render on a copy with permuted weights, too: it doubles the memory of the
        weights.
    k
        How many images count as those that excite a unit most.
    device, precision, progress
        As in :func:`featviz.render`.
    settings
        ``param``, ``transforms``, ``quality``, ``steps``, ``size``, ``optimizer``, ``lr``,
        ``schedule``, ``redirect``, ``compile`` and ``batch_size``, as in :func:`featviz.render`.

    Ctrl-C ends the run and returns what was measured so far, with ``interrupted`` set.

    Raises
    ------
    FeatvizError
        For input that cannot work, before the first step.
    OptimizationError
        If no picture could be optimized.
    """
    if not isinstance(model, Model):
        raise FeatvizError("check takes a featviz.Model: wrap the network, fv.Model(net, mean=…)")
    if (objective is None) == (result is None):
        raise FeatvizError("check takes either objectives or a result")
    if result is not None and not isinstance(result, Result):
        raise FeatvizError(f"result is what fv.render returns, not {type(result).__name__}")
    firsts = None
    (seed,) = expand(seed, 1)
    if result is not None:
        if settings or seed or precision != "fp32":
            raise FeatvizError("a result brings its settings, seeds and precision with it")
        objective, firsts, settings = list(result.objectives), result.seeds, recall(result.record)
        precision = settings.pop("precision")
    given = [objective] if isinstance(objective, (str, Objective)) else list(objective or ())
    goals = [as_objective(o) for o in given]
    if not goals:
        raise FeatvizError("give at least one objective, such as class:285")
    _check_settings(settings)
    plain = {name: value for name, value in settings.items() if name != "batch_size"}
    job = prepare(model, device=device, precision=precision, **plain)
    if job.param.transparent or job.param.relational:
        raise FeatvizError("check takes opaque pictures that stand alone: take another param")
    for goal in goals:
        if goal.relational or goal.sliced(slice(0, 1)) != goal:
            raise FeatvizError(f"{goal} is about a batch: check takes those of single pictures")
        job.check(goal, 1)
    if images is not None:
        Source(images)  # a folder that is not there is named before the first step
    inquiry = Inquiry(
        model=job.model,
        goals=goals,
        subjects=[subject(goal) for goal in goals],
        firsts=firsts or [seed] * len(goals),
        seeds=positive_int("seeds", seeds),
        k=positive_int("k", k),
        images=images,
        panel=panel(job.model, judges),
        randomize=randomize,
        rendering={**settings, "precision": precision, "progress": progress},
        given=None if result is None else result.images,
    )
    interrupted = inquiry.run()
    asked: dict[str, Any] = {"seeds": seeds, "k": k, "batch_size": settings.get("batch_size")}
    asked |= {"seed": firsts or seed, "judges": list(inquiry.panel.judges)}
    record = {**job.settings, **asked, "verb": "check", "images": inquiry.count}
    return Checks(tuple(inquiry.checks()), record, interrupted)


def subject(goal: Objective) -> Objective:
    """Return an objective without its penalties and numbers; itself if nothing else is in it.

    >>> str(subject(as_objective("class:1 + 20*batchnorm_match - 0.1*l1")))
    'class:1'
    """
    kept = [(c, part) for c, part in terms_of(goal) if part is not ONE]
    kept = [(c, part) for c, part in kept if not isinstance(part, PRIORS)]
    if not kept or len(kept) == len(terms_of(goal)):
        return goal
    return sum((c * part for c, part in kept[1:]), kept[0][0] * kept[0][1])


def recall(record: dict[str, Any]) -> dict[str, Any]:
    """Return what :func:`check` has to be given to make the pictures of a record again.

    Raises
    ------
    FeatvizError
        If they were made with something that has no text, or ended early.
    """
    missing = [name for name in _REPEATED if record.get(name) is None]
    if missing or record.get("verb") != "render":
        raise FeatvizError(
            f"its {missing[0] if missing else 'verb'} has no text, so that the picture cannot be "
            "made again: give the objective and the settings"
        )
    if record.get("optimizer") != "adam" or record.get("schedule") is not None:
        raise FeatvizError("it was made with an optimizer of your own: give objective and settings")
    if record.get("steps_done", record["steps"]) != record["steps"]:
        raise FeatvizError("the run ended early: render the picture to its end first")
    return {**{n: record[n] for n in _REPEATED}, "size": tuple(record["size"])}


def _check_settings(settings: dict[str, Any]) -> None:
    known = {*inspect.signature(prepare).parameters, "batch_size"} - {"model", "device"}
    for name in settings:
        if name not in known:
            hint = did_you_mean(name, known) or f"; known: {', '.join(sorted(known))}"
            raise FeatvizError(f"check has no setting {name!r}{hint}")
