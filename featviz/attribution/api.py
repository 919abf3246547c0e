"""Attribution: which pixels of an image an objective depends on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz._version import __version__
from featviz.attribution.baselines import baseline as make_baseline
from featviz.attribution.case import Case
from featviz.attribution.masks import MaskProblem
from featviz.attribution.methods import AttributionMethod, find_method
from featviz.attribution.result import Attribution, normalized
from featviz.attribution.settings import AttributionKeywords, AttributionSettings
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.io.inputs import ImageLike, read_images
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives import objective as as_objective
from featviz.objectives.group import PerSample
from featviz.optim.batching import evaluated_together
from featviz.optim.callbacks import Callback, Progress, Step
from featviz.optim.evaluator import Evaluator
from featviz.optim.tracing import TraceCache
from featviz.options import takes
from featviz.seeds import expand
from featviz.types import Seed, Size, Tensor, Unpack

#: The percentile of the absolute values that is drawn in the strongest colour.
PERCENTILE = 99.0


@takes(AttributionSettings)
def attribute(
    model: Model,
    image: ImageLike | Sequence[ImageLike],
    objective: Objective | str | Sequence[Objective | str],
    *,
    settings: AttributionSettings | None = None,
    size: Size | None = None,
    seed: Seed = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool = False,
    **options: Unpack[AttributionKeywords],
) -> Attribution:
    """Return which pixels of ``image`` the value of ``objective`` depends on.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`.
    image
        A file, a Pillow image, an array, floats (C, *size) or (B, C, *size) in [0, 1], or a list of
        these. Files and Pillow images are cropped about the centre to the aspect of ``size`` and
        resized to it; arrays and tensors are taken as they are, in any size the network takes.
    objective
        What is explained, or its text: one for all images, or one for each. With one image and
        several objectives the image is explained by each.
    settings
        How; keywords replace its fields.
    size
        To which the images are resized; the model's own for files.
    seed
        An int: image i uses ``seed + i``; or one int for each.
    batch_size
        Copies of an image that go through the network together: 4 on a CPU, 32 elsewhere. For
        masks, images: 32, and on a CPU one, or 4 where that changes no bit. Images do not depend on
        one another.
    device
        Where to compute: ``None`` is where the model is, ``auto`` the best there is.
    callbacks
        :class:`featviz.callbacks.Callback` objects or functions of a step, of methods that optimize
        a mask.
    progress
        Show a progress bar.
    **options
        The fields of :class:`AttributionSettings`.

    Returns
    -------
    Attribution
        A mask that cannot be found, as of an image that is not above its baseline, is zero, and
        ``failures`` and a warning say why. After Ctrl-C there is less, with ``interrupted`` set.

    Raises
    ------
    FeatvizError
        For input that cannot work, or where no mask can be found; if captum is not installed, for
        methods that are captum's.
    """
    if not isinstance(model, Model):
        raise FeatvizError("attribute takes a featviz.Model: wrap the network, fv.Model(net, …)")
    chosen = AttributionSettings.of(settings, options)
    method, method_options = find_method(chosen)
    if method.gradients and torch.is_inference_mode_enabled():
        raise FeatvizError("gradients are off in torch.inference_mode(): leave it first")
    resized = (size,) * len(model.size) if isinstance(size, int) else size
    images = read_images(image, model.channels, model.size, "image", size=resized)
    goals = _goals(objective, len(images))
    if len(images) == 1:
        images = images.expand(len(goals), *images.shape[1:])
    seeds = expand(seed, len(images))
    home = model.on(devices.resolve(device, model.device))
    copies = evaluated_together(home.device, batch_size)
    kind = method.baseline if chosen.baseline is None else chosen.baseline
    baselines = None if kind is None else make_baseline(kind, images)
    size_seen = tuple(images.shape[2:])
    traces = TraceCache() if method.evaluations(method_options, size_seen) >= 32 else None
    evaluators = [
        Evaluator(
            home, goal, size_seen, precision=chosen.precision, batch_size=copies, traces=traces
        )
        for goal in goals
    ]
    failures: dict[int, str] = {}
    try:
        with home.session():
            scores = _scores(evaluators, images)
            baseline_scores = None if baselines is None else _scores(evaluators, baselines)
            if method.optimize is None:
                cases = _cases(evaluators, images, baselines, seeds, method_options)
                attributions, interrupted = _explain(method, cases, progress)
            else:
                assert baselines is not None
                assert baseline_scores is not None
                with torch.enable_grad():
                    for evaluator, one in zip(evaluators, images.split(1), strict=True):
                        # Without a gradient the loop would follow the mask's costs alone.
                        evaluator(one.detach().to(home.device, copy=True).requires_grad_())
                    problem = MaskProblem(
                        model=home,
                        images=images,
                        baselines=baselines,
                        goals=goals,
                        scores=scores,
                        baseline_scores=baseline_scores,
                        seeds=seeds,
                        options=method_options,
                        precision=chosen.precision,
                        # On a CPU the loop finds out how many at a time change no bit.
                        micro=None if batch_size is None and home.device.type == "cpu" else copies,
                        callbacks=[*callbacks, Progress()] if progress else list(callbacks),
                    )
                    attributions, failures, interrupted = method.optimize(problem)
    except torch.OutOfMemoryError as error:
        raise FeatvizError(
            f"out of memory with {copies} images of {'x'.join(map(str, size_seen))} at a time: use "
            "a smaller batch_size, a smaller size, or precision bf16"
        ) from error
    if failures:
        warnings.warn("; ".join(failures.values()), FeatvizWarning, stacklevel=3)
    done = len(attributions)
    result = Attribution(
        images=images[:done].clone(),
        attributions=attributions,
        heat=attributions[:, 0],
        scores=scores[:done],
        objectives=[str(goal) for goal in goals[:done]],
        seeds=seeds[:done],
        baseline_scores=None if baseline_scores is None else baseline_scores[:done],
        method=chosen.method,
        reduction=method.reduction,
        settings={
            "version": __version__,
            "verb": "attribute",
            "model": model.name,
            "method": chosen.method,
            "size": list(size_seen),
            "baseline": "given" if isinstance(kind, torch.Tensor) else kind,
            **{key: value for key, value in method_options.items() if key != "segments"},
            "segments": method_options.get("segments") is not None,
            "over": method.reduction,
            "signed": method.signed,
            "percentile": PERCENTILE,
            "precision": chosen.precision,
        },
        failures=failures,
        interrupted=interrupted,
        goals=goals[:done],
    )
    result.heat = normalized(result.pixels, PERCENTILE, signed=method.signed)
    if method.complete and result.baseline_scores is not None:
        total = attributions.double().flatten(1).sum(1)
        result.delta = (total - (result.scores - result.baseline_scores).double()).float()
    return result


def _goals(objective: Objective | str | Sequence[Objective | str], images: int) -> list[Objective]:
    """Return one objective for each image.

    Raises
    ------
    FeatvizError
        For another number of them, or an objective of a whole batch.
    """
    goal = as_objective(objective)
    goals = list(goal.parts) if isinstance(goal, PerSample) else [goal] * images
    if images not in (1, len(goals)):
        raise FeatvizError(f"{len(goals)} objectives for {images} images")
    for goal in goals:
        if goal.relational:
            raise FeatvizError(
                f"attribution takes objectives of single images, not {goal}: "
                "its value depends on the other images of the batch"
            )
    return goals


def _scores(evaluators: list[Evaluator], images: Tensor) -> Tensor:
    """Return each image's score (B,), one at a time, so that it does not depend on the others."""
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
    return [
        Case(
            evaluator,
            images[i : i + 1].to(device),
            None if baselines is None else baselines[i : i + 1].to(device),
            seeds[i],
            options,
        )
        for i, evaluator in enumerate(evaluators)
    ]


def _explain(method: AttributionMethod, cases: list[Case], progress: bool) -> tuple[Tensor, bool]:
    """Explain one image after the other; return what is done, also where Ctrl-C ends it."""
    from tqdm.auto import tqdm

    assert method.explain is not None
    rows: list[Tensor] = []
    try:
        for case in tqdm(cases, unit="image", leave=False, disable=None if progress else True):
            rows.append(method.explain(case).detach().float().cpu())
    except KeyboardInterrupt:
        if not rows:
            raise
        return torch.cat(rows), True
    return torch.cat(rows), False
