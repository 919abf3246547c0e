"""``featviz render``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

import featviz as fv
from featviz.cli import options
from featviz.io import images
from featviz.optim.settings import Settings


@click.command(cls=options.Command, context_settings=options.CONTEXT)
@click.argument("model", required=False)
@click.argument("objectives", nargs=-1)
@click.option("-o", "--output", required=True, help="The image to write (.png).")
@click.option("--from", "source", metavar="PNG", help="Repeat the image in this file.")
@options.of(Settings)
@options.seed
@options.batch_size
@click.option("--columns", type=int, default=None, help="Columns of the contact sheet.")
@click.option("--alpha", is_flag=True, help="Make transparent what did not matter.")
@click.option("--separate", is_flag=True, help="Also write a file for each objective.")
@options.tensorboard
@options.device
@options.as_json
def render(**given: Any) -> int:
    r"""Render what the units named by OBJECTIVES respond to in MODEL.

    \b
    featviz render efficientnet_lite0 channel:_blocks.10:5 -o channel.png
    featviz render efficientnet_lite0 class:285 'class:"daisy"' -o classes.png --steps 256
    featviz render efficientnet_lite0 '-channel:_blocks.10:5' -o negative.png
    """
    output = images.check_output(given["output"])
    if given["columns"] is not None and given["columns"] < 1:
        raise fv.FeatvizError(f"columns must be positive, not {given['columns']}")
    name, texts, seed, settings = given["model"], list(given["objectives"]), given["seed"], None
    if given["source"]:
        name, text, first, settings = _recall(given)
        texts, seed = [text], first if seed is None else seed
    if not name or not texts:
        raise fv.FeatvizError("give a model and at least one objective, such as class:285")
    goal = fv.objective(texts[0] if len(texts) == 1 else texts)
    model = fv.load(name)
    watchers = [fv.callbacks.TensorBoard(given["tensorboard"])] if given["tensorboard"] else []
    begun = time.perf_counter()
    failed = None
    try:
        result = fv.render(
            model,
            goal,
            settings=settings,
            seed=0 if seed is None else seed,
            batch_size=given["batch_size"],
            device=given["device"],
            callbacks=watchers,
            progress=sys.stderr.isatty(),
            **options.given(given, Settings),
        )
    except fv.OptimizationError as error:
        result, failed = error.result, error
    seconds = time.perf_counter() - begun
    if failed and len(result.failures) == len(result):
        raise failed
    written = result.save(
        output, columns=given["columns"], separate=given["separate"], alpha=given["alpha"]
    )
    _report(result, written, seconds, given["as_json"])
    if result.interrupted:
        return 130
    return 2 if result.failures else 0


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
        click.echo(f"{text}  seed {seed}  score {score:.4g}")
    if result.redirected is not None and result.redirected.any():
        which = [t for t, r in zip(result.objectives, result.redirected, strict=True) if r]
        click.echo(f"reached through redirected ReLUs: {', '.join(dict.fromkeys(which))}")
    click.echo(f"{', '.join(map(str, written))}  ({seconds:.1f} s)")


def _recall(given: dict[str, Any]) -> tuple[str, str, Any, Settings]:
    """Return the model, objective, seeds and settings that an image carries."""
    path = given["source"]
    if given["model"]:
        raise fv.FeatvizError("--from repeats an image: give it without a model and objectives")
    record = images.read_settings(path)
    for key in ("model", "goal", "seed"):
        if record.get(key) is None:
            raise fv.FeatvizError(
                f"{path!r} cannot be repeated from here: its {key} has no text; repeat it in Python"
            )
    try:
        settings = Settings.from_record(record)
    except fv.FeatvizError as error:
        raise fv.FeatvizError(f"{path!r} cannot be repeated from here: {error}") from error
    done = record.get("steps_done", settings.steps)
    if done != settings.steps and given["steps"] is None:
        raise fv.FeatvizError(
            f"{path!r} ended after {done} of {settings.steps} steps: say how many with --steps"
        )
    return record["model"], str(record["goal"]), record["seed"], settings
