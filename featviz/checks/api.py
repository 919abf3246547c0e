"""Check whether a visualization can be trusted: render related images and apply seven criteria."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz._version import __version__
from featviz.checks.judges import panel
from featviz.checks.result import Checks
from featviz.checks.runner import CheckRunner
from featviz.checks.settings import CheckKeywords, CheckSettings
from featviz.errors import FeatvizError
from featviz.io.dataset import Dataset, ImageDataset
from featviz.networks import devices
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives.base import ONE, terms_of
from featviz.objectives.batchnorm import BatchnormMatch
from featviz.objectives.measured_prior import ActivationPrior
from featviz.objectives.penalties import L1, L2, Blur, BoundaryComplexity, Spectrum
from featviz.objectives.text import objectives as as_objectives
from featviz.objectives.variation import MultiscaleVariation, TotalVariation
from featviz.optim.callbacks import Callback, Step
from featviz.optim.result import Result
from featviz.optim.settings import Settings
from featviz.options import split, takes
from featviz.seeds import expand
from featviz.types import Unpack
from featviz.validation import positive_int

#: Regularizers, which say nothing about a unit: images are scored without them.
PRIORS = (
    TotalVariation,
    MultiscaleVariation,
    L1,
    L2,
    Blur,
    BoundaryComplexity,
    Spectrum,
    BatchnormMatch,
    ActivationPrior,
)


@takes(CheckSettings, Settings)
def check(
    model: Model | str,
    objective: Objective | str | Sequence[Objective | str] | None = None,
    *,
    result: Result | None = None,
    images: Dataset | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool | None = None,
    **options: Unpack[CheckKeywords],
) -> Checks:
    """Render objectives and judge by seven criteria whether their images can be trusted.

    ``docs/check.md`` has the formula, the source and the threshold of each. All images of all
    objectives are made by one :func:`featviz.render`, those of the randomized network by a second,
    and the dataset is read once.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`, or the name of a network.
    objective
        One objective or a list. Penalties in it shape the image, but are left out of its score.
    result
        Instead of objectives: finished images of :func:`featviz.render`. Their objectives, seeds
        and settings are also used for the images they are compared with.
    images
        A folder or dataset as in :func:`featviz.examples`; without it, ``strength``,
        ``interpretability`` and ``path`` are not measured.
    settings
        How the images are optimized; keyword arguments override its fields.
    seed
        The seed of the image that is judged.
    batch_size, device, callbacks, progress
        As in :func:`featviz.render`.
    **options
        The fields of :class:`CheckSettings` and :class:`featviz.Settings`.

    Returns
    -------
    Checks
        After Ctrl-C what was measured so far, with ``interrupted`` set.

    Raises
    ------
    FeatvizError
        For invalid input, before the first step.
    OptimizationError
        If no image could be optimized.
    """
    model = as_model(model, "check")
    if (objective is None) == (result is None):
        raise FeatvizError("check takes either objectives or a result")
    if result is not None and not isinstance(result, Result):
        raise FeatvizError(f"result must be what fv.render returns, not {type(result).__name__}")
    check_options, render_options = split(options, CheckSettings, Settings)
    config = CheckSettings.of(None, check_options)
    (seed,) = expand(seed, 1)
    if result is None:
        render_settings, first_seeds = Settings.of(settings, render_options), None
    else:
        if render_options or settings is not None or seed:
            raise FeatvizError("a result already determines the settings, seeds and precision")
        objective, first_seeds = list(result.objectives), result.seeds
        render_settings = recall(result.record)
    assert objective is not None
    goals = as_objectives(objective)
    if not goals:
        raise FeatvizError("give at least one objective, such as class:285")
    network = model.on(devices.resolve(device, model.device))
    plan = render_settings.resolve(network)
    if plan.param.transparent or plan.param.relational:
        raise FeatvizError(
            "check needs opaque images that do not depend on one another: use another param"
        )
    for goal in goals:
        if goal.relational or goal.sliced(slice(0, 1)) != goal:
            raise FeatvizError(f"{goal} is about a batch: check takes objectives of single images")
        plan.check(network, goal, 1)
    if images is not None:
        ImageDataset(images)  # a missing folder is reported before the first step
    runner = CheckRunner(
        model=network,
        goals=goals,
        subjects=[subject(goal) for goal in goals],
        firsts=first_seeds or [seed] * len(goals),
        seeds=positive_int("seeds", config.seeds),
        k=positive_int("k", config.k),
        images=images,
        panel=panel(network, config.judges),
        randomize=config.randomize,
        settings=plan.settings,
        batch_size=batch_size,
        callbacks=callbacks,
        progress=progress,
        given=None if result is None else result.images,
    )
    interrupted = runner.run()
    record = {
        "version": __version__,
        "model": model.name,
        **plan.record,
        "verb": "check",
        "seeds": config.seeds,
        "seed": first_seeds or seed,
        "k": config.k,
        "batch_size": batch_size,
        "judges": list(runner.panel.judges),
        "images": runner.count,
    }
    checks = tuple(runner.checks())
    return Checks(checks, record, interrupted)


def subject(goal: Objective) -> Objective:
    """Return an objective without its penalties and constants; unchanged if nothing else is in it.

    >>> goals = as_objectives("class:1 + 20*batchnorm_match - 0.1*l1")
    >>> str(subject(goals[0]))
    'class:1'
    """
    terms = [(c, part) for c, part in terms_of(goal) if part is not ONE]
    terms = [(c, part) for c, part in terms if not isinstance(part, PRIORS)]
    if not terms or len(terms) == len(terms_of(goal)):
        return goal
    return sum((c * part for c, part in terms[1:]), terms[0][0] * terms[0][1])


def recall(record: dict[str, Any]) -> Settings:
    """Return the settings that made the images of a record.

    Raises
    ------
    FeatvizError
        If a setting has no text form, or the run ended early.
    """
    if record.get("verb") != "render":
        raise FeatvizError("its verb is not render: give the objective and the settings")
    settings = Settings.from_record(record)
    if record.get("steps_done", settings.steps) != settings.steps:
        raise FeatvizError("the run ended early: render the image to its end first")
    return settings
