"""``featviz explain``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

import featviz as fv
from featviz.attacks.criterion import predict
from featviz.attribution import METHODS
from featviz.attribution.api import together
from featviz.attribution.baselines import BASELINES
from featviz.attribution.curves import Curves
from featviz.attribution.masks import KINDS
from featviz.cli import options
from featviz.io import images
from featviz.io.inputs import read_fitted
from featviz.networks import devices
from featviz.types import Tensor

_PASSED = ("baseline", "steps", "cells", "layer", "sd", "area", "kind", "batch_size", "seed")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.argument("pictures", metavar="IMAGE…", nargs=-1)
@click.option("-o", "--output", required=True, help="The sheet to write (.png).")
@click.option("--objective", help="What is explained; the predicted class if not given.")
@click.option(
    "--method", default="integrated_gradients", show_default=True, help=", ".join(METHODS)
)
@click.option("--baseline", help=f"What stands for nothing: {', '.join(BASELINES)}; the method's.")
@click.option("--steps", type=int, help="Points, noisy copies, coalitions or updates.")
@click.option("--cells", type=int, help="Cells along the longer side.")
@click.option("--layer", help="The layer of grad_cam.")
@click.option("--sd", type=float, help="Noise of smooth_grad, as a share of the values' range.")
@click.option("--area", type=float, help="The share that extremal_perturbation keeps.")
@click.option("--kind", help=f"What a mask is to do: {' or '.join(KINDS)}.")
@click.option("--check", is_flag=True, help="Measure deletion and insertion against chance.")
@click.option("--size", type=options.SIZE, help="What the images are resized to; the model's own.")
@click.option("--batch-size", type=int, default=None, help="4 on a CPU, 32 elsewhere.")
@click.option("--seed", type=options.SEED, default="0", show_default=True)
@options.device
@options.precision
@options.as_json
def explain(**given: Any) -> int:
    r"""Show which pixels of each IMAGE carry an objective of MODEL.

    \b
    featviz explain efficientnet_lite0 cat.png -o why.png
    featviz explain efficientnet_lite0 cat.png -o why.png --objective 'class:"Egyptian cat"' \
        --method extremal_perturbation --check

    Images are cropped about the centre to the aspect of the size and resized to it.
    """
    output = images.check_output(given["output"])
    if not given["pictures"]:
        raise fv.FeatvizError("give at least one image to explain")
    model = fv.load(given["model"])
    names = list(given["pictures"])
    # A network of signals or volumes takes no files, whatever the size.
    pictures = read_fitted(
        names,
        model.channels,
        model.size,
        given["size"] if len(model.size) == 2 else None,
        "image",
    )
    model = model.on(devices.resolve(given["device"], model.device))
    goal, chosen = given["objective"], given["objective"] is None
    if chosen:
        goal = _predicted(model, pictures, together(model, given["batch_size"]))
    begun = time.perf_counter()
    result = fv.attribute(
        model,
        pictures,
        goal,
        method=given["method"],
        device=given["device"],
        precision=given["precision"],
        progress=sys.stderr.isatty(),
        **{name: given[name] for name in _PASSED},
    )
    written = result.save(output)
    curves, interrupted = None, result.interrupted
    if given["check"] and not interrupted:
        try:
            curves = result.curves(
                model, device=given["device"], precision=given["precision"],
                batch_size=given["batch_size"],
            )  # fmt: skip
        except KeyboardInterrupt:
            interrupted = True
    seconds = time.perf_counter() - begun
    if given["as_json"]:
        document = {
            **result.record,
            "images": names[: len(result)],
            "objective_chosen": "predicted" if chosen else "given",
            "curves": None if curves is None else curves.record,
            "files": [str(written)],
            "seconds": round(seconds, 3),
            "interrupted": interrupted,
        }
        click.echo(json.dumps(document, indent=1, allow_nan=False))
    else:
        _report(model, result, names, curves, chosen, written, seconds)
    if interrupted:
        return 130
    return 2 if result.failures else 0


def _predicted(model: fv.Model, pictures: Tensor, batch_size: int) -> list[fv.Objective]:
    """Return the predicted class of each picture as what is explained."""
    info = model.layers(tuple(pictures.shape[2:])).find(model.logits)
    if info.positions or info.units < 2:
        raise fv.FeatvizError("the network has no class logits: say what to explain, --objective")
    return [fv.class_logit(int(p)) for p in predict(model, pictures, model.logits, batch_size)]


def _report(
    model: fv.Model,
    result: fv.Attribution,
    names: list[str],
    curves: Curves | None,
    chosen: bool,
    written: Path,
    seconds: float,
) -> None:
    for i in range(len(result)):
        text = result.objectives[i]
        if chosen:
            known = model.classes[int(text.split(":")[1])] if model.classes else "predicted"
            text = f"{text} ({known}, as predicted)"
        line = f"{names[i]}: {text} {result.scores[i]:.4g}"
        if result.baseline_scores is not None:
            line += f", baseline {result.baseline_scores[i]:.4g}"
        if result.delta is not None:
            line += f", left out {result.delta[i]:.2g}"
        if i in result.failures:
            line += ", no mask"
        click.echo(line)
        if curves is not None:
            click.echo(f"  {_verdict(curves.record, i)}")
    seen = "x".join(map(str, result.settings["size"]))
    click.echo(f"{written}: {result.settings['method']} at {seen}  ({seconds:.1f} s)")


def _verdict(found: dict[str, Any], i: int) -> str:
    if found["deletion_auc"][i] is None:
        return "no curves: the objective is not higher on the image than on the blurred one"
    parts = [
        f"{name} {found[f'{name}_auc'][i]:.3f} (random {found[f'random_{name}_auc'][i]:.3f})"
        for name in ("deletion", "insertion")
    ]
    verdict = "better" if found["beats_random"][i] else "no better"
    return f"{', '.join(parts)}: {verdict} than random orders"
