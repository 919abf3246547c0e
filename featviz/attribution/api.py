"""Attribution: which pixels of an image an objective depends on."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz.attribution.baseline_sets import baseline_sets
from featviz.attribution.baselines import baseline as make_baseline
from featviz.attribution.choice import choose_methods, first_that_works
from featviz.attribution.explaining import cases_of, explained, notes_of, scores_of
from featviz.attribution.masks import MaskProblem
from featviz.attribution.methods import find_method
from featviz.attribution.prediction import goals_of, predicted_logits
from featviz.attribution.record import record_of
from featviz.attribution.result import PERCENTILE, Attribution, normalized
from featviz.attribution.settings import AttributionKeywords, AttributionSettings
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.io.inputs import ImageLike, read_images
from featviz.networks import devices
from featviz.networks.coercion import as_model
from featviz.networks.differentiability import gradient_errors_explained
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.optim.batching import evaluated_together
from featviz.optim.callbacks import Callback, Step, watched
from featviz.optim.evaluator import Evaluator
from featviz.optim.tracing import TraceCache
from featviz.options import takes
from featviz.seeds import expand
from featviz.types import Seed, Size, Unpack
from featviz.validation import positive_int


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
            scores = scores_of(evaluators, images)
            baseline_scores = None if baselines is None else scores_of(evaluators, baselines)
            if sets is not None:
                pairs = zip(evaluators, sets, strict=True)
                baseline_scores = torch.stack([e.scores(b).double().mean() for e, b in pairs])
                baseline_scores = baseline_scores.float()
            if method.optimize is None:
                shown = baselines[:, None] if baselines is not None else sets
                cases = cases_of(evaluators, images, shown, seeds, method_options)
                attributions, interrupted = explained(method, cases, progress)
                notes = notes_of(cases[: len(attributions)])
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
        settings=record_of(
            model.name, config, method, method_options, input_size, baseline_spec, notes
        ),
        failures=failures,
        interrupted=interrupted,
        goals=goals[:count],
    )
    result.heat = normalized(result.pixels, PERCENTILE, signed=method.signed)
    if method.complete and result.baseline_scores is not None:
        total = attributions.double().flatten(1).sum(1)
        result.delta = (total - (result.scores - result.baseline_scores).double()).float()
    return result
