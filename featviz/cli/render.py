"""``featviz render``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

import featviz as fv
from featviz.cli import options
from featviz.io import images
from featviz.optim.result import slug
from featviz.optim.settings import Settings
from featviz.optim.stored_run import StoredRun


@click.command(cls=options.Command, context_settings=options.CONTEXT)
@click.argument("model", required=False)
@click.argument("objectives", nargs=-1)
@click.option("-o", "--output", help="Image to write (.png). Default: named after OBJECTIVES.")
@click.option("--from", "source", metavar="PNG", help="Render the image in this file again.")
@options.trust
@options.of(Settings)
@options.seed
@options.batch_size
@click.option(
    "--columns", type=options.COUNT, default=None, help="Number of columns of the contact sheet."
)
@click.option("--alpha", is_flag=True, help="Make unimportant pixels transparent.")
@click.option("--separate", is_flag=True, help="Also write a file for each objective.")
@options.tensorboard
@options.device
@options.quiet
@options.as_json
def render(**values: Any) -> int:
    r"""Render images that maximize OBJECTIVES, such as units of MODEL.

    \b
    featviz render efficientnet_lite0 channel:_blocks.10:5 -o channel.png
    featviz render efficientnet_lite0 class:285 'class:"daisy"' --steps 512
    featviz render efficientnet_lite0 '-channel:_blocks.10:5' -o negative.png
    """
    output = images.check_output(values["output"]) if values["output"] is not None else None
    if values["columns"] is not None and values["columns"] < 1:
        raise fv.FeatvizError(f"columns must be positive, not {values['columns']}")
    name, texts, seed, settings = values["model"], list(values["objectives"]), values["seed"], None
    if values["source"] is not None:
        stored = _recall(values)
        settings, texts = stored.settings, [str(stored.goal)]
        seed = list(stored.seeds) if seed is None else seed
        name = name or stored.model
    if not name or not texts:
        raise fv.FeatvizError("give a model and at least one objective, such as class:285")
    goal = fv.objective(texts[0] if len(texts) == 1 else texts)
    if output is None:
        first = slug(texts[0].strip()) + (f"-and-{len(texts) - 1}-more" if len(texts) > 1 else "")
        output = images.check_output(options.default_output(first))
    model = options.load(name, values)
    callbacks = [fv.callbacks.TensorBoard(values["tensorboard"])] if values["tensorboard"] else []
    started = time.perf_counter()
    failure = None
    try:
        result = fv.render(
            model,
            goal,
            settings=settings,
            seed=0 if seed is None else seed,
            batch_size=values["batch_size"],
            device=values["device"],
            callbacks=callbacks,
            progress=options.progress(),
            **options.given(values, Settings),
        )
    except fv.OptimizationError as error:
        result, failure = error.result, error
    seconds = time.perf_counter() - started
    if failure and len(result.failures) == len(result):
        raise failure
    written = result.save(
        output, columns=values["columns"], separate=values["separate"], alpha=values["alpha"]
    )
    _report(result, written, seconds, values["as_json"])
    return options.status(result.interrupted, written, failed=bool(result.failures))


def _report(result: fv.Result, written: list[Path], seconds: float, as_json: bool) -> None:
    if as_json:
        document = {
            **result.record,
            "files": [str(p) for p in written],
            "seconds": round(seconds, 3),
            "failures": {result.objectives[i]: why for i, why in result.failures.items()},
            "redirected": result.redirected.tolist() if result.redirected is not None else None,
            "interrupted": result.interrupted,
        }
        click.echo(json.dumps(document, indent=1))
        return
    for text, seed, score in zip(
        result.objectives, result.seeds, result.scores.tolist(), strict=True
    ):
        options.echo(f"{text}  seed {seed}  score {score:.4g}")
    if result.redirected is not None and result.redirected.any():
        redirected = [t for t, r in zip(result.objectives, result.redirected, strict=True) if r]
        options.echo(f"optimized through redirected ReLUs: {', '.join(dict.fromkeys(redirected))}")
    options.echo(f"{', '.join(map(str, written))}  ({seconds:.1f} s)")


def _recall(values: dict[str, Any]) -> StoredRun:
    """Return the run that an image file describes."""
    path = values["source"]
    if values["objectives"]:
        raise fv.FeatvizError("--from renders a stored image: omit the objectives")
    record = images.read_settings(path)
    for key in ("model", "goal", "seed"):
        if record.get(key) is None and not (key == "model" and values["model"]):
            raise fv.FeatvizError(
                f"{path!r} cannot be rendered again: its {key} has no text form; use Python"
            )
    try:
        stored = StoredRun.of(record)
    except fv.FeatvizError as error:
        raise fv.FeatvizError(f"{path!r} cannot be rendered again: {error}") from error
    done, steps = stored.done, stored.settings.steps
    if done != steps and values["steps"] is None:
        raise fv.FeatvizError(
            f"{path!r} ended after {done} of {steps} steps: choose the number with --steps"
        )
    return stored
