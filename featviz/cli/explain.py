"""``featviz explain``, with the alias ``featviz attribute``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

import featviz as fv
from featviz.attribution.curves import Curves
from featviz.attribution.prediction import predicted_logits
from featviz.attribution.settings import AttributionSettings
from featviz.cli import options
from featviz.io import images
from featviz.io.inputs import read_images
from featviz.networks import devices


@click.command(cls=options.Command, context_settings=options.CONTEXT)
@click.argument("model")
@click.argument("paths", metavar="IMAGE…", nargs=-1)
@click.option("-o", "--output", help="Sheet to write (.png). Default: explain.png.")
@click.option("--objective", help="Objective to explain. Default: the predicted class.")
@options.of(AttributionSettings)
@click.option(
    "--check", is_flag=True, help="Compare deletion and insertion curves with random orders."
)
@click.option(
    "--size",
    type=options.SIZE,
    help="Size that the images are resized to. Default: the model's own.",
)
@options.seed
@options.batch_size
@options.device
@options.quiet
@options.as_json
def explain(**values: Any) -> int:
    r"""Show which pixels of each IMAGE an objective of MODEL depends on.

    \b
    featviz explain efficientnet_lite0 cat.png -o why.png
    featviz explain efficientnet_lite0 cat.png --objective class:285 \
        --method extremal_perturbation --check

    Images are centre-cropped to the aspect ratio of the size and resized to it.
    """
    output = images.check_output(options.output(values["output"], "explain"))
    if not values["paths"]:
        raise fv.FeatvizError("give at least one image to explain")
    model = fv.load(values["model"])
    names = list(values["paths"])
    inputs = read_images(
        names, model.channels, model.size, "image", size=values["size"], crop=model.crop
    )
    model = model.on(devices.resolve(values["device"], model.device))
    objective, uses_prediction = values["objective"], values["objective"] is None
    if uses_prediction:
        objective = predicted_logits(model, inputs, values["batch_size"])
    started = time.perf_counter()
    result = fv.attribute(
        model,
        inputs,
        objective,
        seed=values["seed"] or 0,
        batch_size=values["batch_size"],
        device=values["device"],
        progress=options.progress(),
        **options.given(values, AttributionSettings),
    )
    (written,) = result.save(output)
    curves, interrupted = None, result.interrupted
    if values["check"] and not interrupted:
        try:
            curves = result.curves(
                model,
                device=values["device"],
                precision=values["precision"] or "fp32",
                batch_size=values["batch_size"],
            )
        except KeyboardInterrupt:
            interrupted = True
    seconds = time.perf_counter() - started
    if values["as_json"]:
        document = {
            **result.record,
            "images": names[: len(result)],
            "objective_chosen": "predicted" if uses_prediction else "given",
            "curves": None if curves is None else curves.record,
            "files": [str(written)],
            "seconds": round(seconds, 3),
            "interrupted": interrupted,
        }
        click.echo(json.dumps(document, indent=1, allow_nan=False))
    else:
        _report(model, result, names, curves, uses_prediction, written, seconds)
    return options.status(interrupted, [written], failed=bool(result.failures))


def _report(
    model: fv.Model,
    result: fv.Attribution,
    names: list[str],
    curves: Curves | None,
    uses_prediction: bool,
    written: Path,
    seconds: float,
) -> None:
    for i in range(len(result)):
        text = result.objectives[i]
        if uses_prediction:
            class_name = model.classes[int(text.split(":")[1])] if model.classes else "predicted"
            text = f"{text} ({class_name}, as predicted)"
        line = f"{names[i]}: {text} {result.scores[i]:.4g}"
        if result.baseline_scores is not None:
            line += f", baseline {result.baseline_scores[i]:.4g}"
        if result.delta is not None:
            line += f", convergence delta {result.delta[i]:.2g}"
        if i in result.failures:
            line += ", no mask"
        options.echo(line)
        if curves is not None:
            options.echo(f"  {_verdict(curves.record, i)}")
    size = "x".join(map(str, result.images.shape[2:]))
    layer = result.settings.get("layer")
    method = result.method + (f" of {layer}" if isinstance(layer, str) else "")
    choice = result.settings.get("choice")
    options.echo(f"{written}: {method} at {size}  ({seconds:.1f} s)")
    if choice:
        options.echo(f"  method auto: {choice}")


def _verdict(record: dict[str, Any], i: int) -> str:
    if record["deletion_auc"][i] is None:
        return "no curves: the objective is not higher for the image than for the blurred one"
    parts = [
        f"{name} {record[f'{name}_auc'][i]:.3f} (random {record[f'random_{name}_auc'][i]:.3f})"
        for name in ("deletion", "insertion")
    ]
    verdict = "better" if record["beats_random"][i] else "no better"
    return f"{', '.join(parts)}: {verdict} than random orders"
