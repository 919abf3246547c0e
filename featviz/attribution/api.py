"""Attribution: which pixels of an image an objective depends on."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from featviz._version import __version__
from featviz.attribution.baseline_sets import baseline_sets
from featviz.attribution.baselines import baseline as make_baseline
from featviz.attribution.case import Case
from featviz.attribution.choice import choose_methods, first_that_works
from featviz.attribution.masks import MaskProblem
from featviz.attribution.methods import AttributionMethod, find_method
from featviz.attribution.prediction import goals_of, predicted_logits
from featviz.attribution.result import Attribution, normalized
from featviz.attribution.settings import AttributionKeywords, AttributionSettings
from featviz.bars import tqdm
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.io.inputs import ImageLike, read_images
from featviz.networks import devices
from featviz.networks.coercion import as_model
from featviz.networks.differentiability import gradient_errors_explained
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives import objective as as_objective
from featviz.optim.batching import evaluated_together
from featviz.optim.callbacks import Callback, Step, watched
from featviz.optim.evaluator import Evaluator
from featviz.optim.tracing import TraceCache
from featviz.options import takes
from featviz.seeds import expand
from featviz.types import Seed, Size, Tensor, Unpack
from featviz.validation import positive_int

#: Percentile of the absolute values at which the colours of a heat map saturate.
PERCENTILE = 99.0


@takes(AttributionSettings)
def attribute(
    model: Model | str,
    image: ImageLike | Sequence[ImageLike],
    objective: Objective | str | Sequence[Objective | str] | None = None,
    *,
    settings: AttributionSettings | None = None,
    size: Size | None = None,
    seed: Seed = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool | None = None,
    **options: Unpack[AttributionKeywords],
) -> Attribution:
    """Attribute the value of ``objective`` to the pixels of ``image``.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`, or the name of a network.
    image
        A file, a Pillow image, an array, floats (C, *size) or (B, C, *size) in [0, 1], or a list of
        these. Files and Pillow images are centre-cropped to the aspect ratio of ``size`` and
        resized; arrays and tensors are used as they are, in any size that the network accepts.
    objective
        The objective to explain, or its text: one for all images, or one for each. A single image
        with several objectives is explained once for each of them. By default, the logit of each
        image's predicted class.
    settings
        How attributions are computed; keyword arguments override its fields.
    size
        Size that the images are resized to; by default, the model's own for files.
    seed
        An int (image i uses ``seed + i``), or one int for each image.
    batch_size
        Copies of an image per forward pass: 4 on a CPU, 32 elsewhere. For masks, images: 32; on a
        CPU one, or 4 if that is bitwise identical. Images do not depend on one another.
    device
        Device to compute on: ``None`` is the model's own, ``auto`` the best one available.
    callbacks
        :class:`featviz.callbacks.Callback` objects or functions of a step, for methods that
        optimize a mask.
    progress
        Show a progress bar; None, the default: in interactive sessions and notebooks.
    **options
        The fields of :class:`AttributionSettings`.

    Returns
    -------
    Attribution
        A mask that cannot be found, e.g. for an image that does not score above its baseline, is
        zero; ``failures`` and a warning say why. After Ctrl-C it is partial and ``interrupted``.

    Raises
    ------
    FeatvizError
        For invalid input, or if no mask can be found; if a method needs captum and it is missing.
    """
    model = as_model(model, "attribute")
    config = AttributionSettings.of(settings, options)
    if config.method != "auto":
        find_method(config)  # refuse what cannot work before anything runs
    if size is not None and not isinstance(size, (tuple, list)):
        size = (positive_int("size", size),) * len(model.size)
    images = read_images(image, model.channels, model.size, "image", size=size, crop=model.crop)
    network = model.on(devices.resolve(device, model.device))
    if objective is None:
        objective = predicted_logits(network, images, batch_size)
    goals = goals_of(objective, len(images))
    if len(images) == 1:
        images = images.expand(len(goals), *images.shape[1:])
    if config.method == "auto":
        copies = evaluated_together(network.device, batch_size)
        choice = choose_methods(config, network, goals, images, copies)
        return first_that_works(
            choice,
            lambda name: attribute(
                network,
                images,
                goals,
                settings=dataclasses.replace(config, method=name, seconds=None),
                seed=seed,
                batch_size=batch_size,
                callbacks=callbacks,
                progress=progress,
            ),
        )
    method, method_options = find_method(config)
    seeds = expand(seed, len(images))
    copies = evaluated_together(network.device, batch_size)
    baseline_spec = method.baseline if config.baseline is None else config.baseline
    baselines, sets = None, None
    if method.several:
        sets = baseline_sets(baseline_spec, images, seeds)
    elif baseline_spec is not None:
        baselines = make_baseline(baseline_spec, images)  # type: ignore[arg-type]
    input_size = tuple(images.shape[2:])
    traces = TraceCache() if method.evaluations(method_options, input_size) >= 32 else None
    evaluators = [
        Evaluator(
            network, goal, input_size, precision=config.precision, batch_size=copies, traces=traces
        )
        for goal in goals
    ]
    failures: dict[int, str] = {}
    notes: dict[str, Any] = {}
    try:
        with network.session(), gradient_errors_explained(network.net):
            scores = _scores(evaluators, images)
            baseline_scores = None if baselines is None else _scores(evaluators, baselines)
            if sets is not None:
                pairs = zip(evaluators, sets, strict=True)
                baseline_scores = torch.stack([e.scores(b).double().mean() for e, b in pairs])
                baseline_scores = baseline_scores.float()
            if method.optimize is None:
                shown = baselines[:, None] if baselines is not None else sets
                cases = _cases(evaluators, images, shown, seeds, method_options)
                attributions, interrupted = _explain(method, cases, progress)
                notes = _notes(cases[: len(attributions)])
            else:
                assert baselines is not None
                assert baseline_scores is not None
                with torch.enable_grad():
                    for evaluator, sample in zip(evaluators, images.split(1), strict=True):
                        # Raises if there is no gradient: the loop would follow the penalties alone.
                        evaluator(sample.detach().to(network.device, copy=True).requires_grad_())
                    problem = MaskProblem(
                        model=network,
                        images=images,
                        baselines=baselines,
                        goals=goals,
                        scores=scores,
                        baseline_scores=baseline_scores,
                        seeds=seeds,
                        options=method_options,
                        precision=config.precision,
                        # On a CPU the loop picks a batch size with bitwise identical results.
                        micro=None
                        if batch_size is None and network.device.type == "cpu"
                        else copies,
                        callbacks=watched(callbacks, progress),
                    )
                    attributions, failures, interrupted = method.optimize(problem)
    except torch.OutOfMemoryError as error:
        raise FeatvizError(
            f"out of memory with {copies} images of {'x'.join(map(str, input_size))} at a time: "
            "use a smaller batch_size, a smaller size, or precision bf16"
        ) from error
    if failures:
        warnings.warn("; ".join(failures.values()), FeatvizWarning, stacklevel=3)
    count = len(attributions)
    result = Attribution(
        images=images[:count].clone(),
        attributions=attributions,
        heat=attributions[:, 0],
        scores=scores[:count],
        objectives=[str(goal) for goal in goals[:count]],
        seeds=seeds[:count],
        baseline_scores=None if baseline_scores is None else baseline_scores[:count],
        method=config.method,
        reduction=method.reduction,
        settings={
            "version": __version__,
            "verb": "attribute",
            "model": model.name,
            "method": config.method,
            "size": list(input_size),
            "baseline": _recorded(baseline_spec),
            **{k: v for k, v in method_options.items() if k not in ("segments", "data", "infill")},
            **({"infill": "given"} if config.infill is not None else {}),
            **({"data": _named(config.data)} if config.data is not None else {}),
            **({"through": str(as_objective(config.through))} if config.through else {}),
            **notes,
            "segments": method_options.get("segments") is not None,
            "over": method.reduction,
            "signed": method.signed,
            "percentile": PERCENTILE,
            "precision": config.precision,
        },
        failures=failures,
        interrupted=interrupted,
        goals=goals[:count],
    )
    result.heat = normalized(result.pixels, PERCENTILE, signed=method.signed)
    if method.complete and result.baseline_scores is not None:
        total = attributions.double().flatten(1).sum(1)
        result.delta = (total - (result.scores - result.baseline_scores).double()).float()
    return result


def _named(data: Any) -> str:
    """Return a dataset as JSON can hold it."""
    return str(data) if isinstance(data, (str, Path)) else "given"


def _recorded(baseline: Any) -> Any:
    """Return a baseline as JSON can hold it."""
    if isinstance(baseline, (list, tuple)):
        return [_recorded(item) for item in baseline]
    return "given" if isinstance(baseline, torch.Tensor) else baseline


def _scores(evaluators: list[Evaluator], images: Tensor) -> Tensor:
    """Return each image's score (B,), one at a time so that none depends on the others."""
    pairs = zip(evaluators, images.split(1), strict=True)
    return torch.cat([evaluator.scores(image) for evaluator, image in pairs])


def _cases(
    evaluators: list[Evaluator],
    images: Tensor,
    baselines: Tensor | None,
    seeds: list[int],
    options: dict[str, Any],
) -> list[Case]:
    device = evaluators[0].model.device
    shared: dict[Any, Any] = {}
    return [
        Case(
            evaluator,
            images[i : i + 1].to(device),
            None if baselines is None else baselines[i].to(device),
            seeds[i],
            options,
            shared=shared,
        )
        for i, evaluator in enumerate(evaluators)
    ]


def _explain(
    method: AttributionMethod, cases: list[Case], progress: bool | None
) -> tuple[Tensor, bool]:
    """Explain the images one by one; return what is finished, and whether Ctrl-C came."""
    assert method.explain is not None
    attributions: list[Tensor] = []
    try:
        for case in tqdm(cases, unit="image", leave=False, progress=progress):
            attributions.append(method.explain(case).detach().float().cpu())
            if not (attributions[-1].any() or case.warned or case.options.get("through")):
                case.warn(
                    f"no pixel matters for {case.evaluator.objective} by this method: the map is "
                    "zero; use another, or an objective whose units are active on the image"
                )
    except KeyboardInterrupt:
        if not attributions:
            raise
        return torch.cat(attributions), True
    return torch.cat(attributions), False


def _notes(cases: list[Case]) -> dict[str, Any]:
    """Return what the method chose by itself: one value for all images, or a list."""
    notes = {}
    for key in dict.fromkeys(key for case in cases for key in case.notes):
        values = [case.notes.get(key) for case in cases]
        notes[key] = values[0] if len(set(values)) == 1 else values
    return notes
