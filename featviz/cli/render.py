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
from featviz.optim.loop import REDIRECT

_REPEATED = ("steps", "param", "transforms", "lr", "redirect", "precision", "size")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", required=False)
@click.argument("objectives", nargs=-1)
@click.option("-o", "--output", required=True, help="The picture to write (.png).")
@click.option("--from", "source", metavar="PNG", help="Repeat the picture in this file.")
@click.option(
    "--size", type=options.SIZE, help="Side in pixels, or HxW; the model's own if not given."
)
@click.option(
    "--quality",
    default="standard",
    show_default=True,
    help="fast, standard or best: steps and transforms where they are not given.",
)
@click.option("--steps", type=int, default=None, help="Updates; 512 in standard quality.")
@click.option(
    "--seed",
    type=options.SEED,
    default="0",
    show_default=True,
    help="Picture i uses SEED + i; 0,1,2 makes three pictures of one objective.",
)
@click.option(
    "--param",
    default="fourier",
    show_default=True,
    help="fourier, pixel, laplacian, maco, cppn, alpha or gan:NAME; settings: fourier:decay=1.2",
)
@click.option(
    "--transforms",
    default=None,
    help="standard, lucid, none or a list: jitter:8,rotate:5,noise:0.1; the quality's by default.",
)
@click.option("--lr", type=float, default=None, help="Learning rate of Adam.")
@click.option(
    "--redirect",
    type=int,
    default=REDIRECT,
    show_default=True,
    help="Steps in which dead ReLUs are redirected.",
)
@click.option("--batch", type=int, default=None, help="Pictures optimized at once.")
@click.option("--columns", type=int, default=None, help="Columns of the contact sheet.")
@click.option("--alpha", is_flag=True, help="Make transparent what did not matter.")
@click.option("--separate", is_flag=True, help="Also write a file for each objective.")
@options.tensorboard
@options.device
@options.precision
@options.as_json
@click.pass_context
def render(context: click.Context, /, **given: Any) -> int:
    r"""Render what the units named by OBJECTIVES respond to in MODEL.

    \b
    featviz render efficientnet_lite0 channel:_blocks.10:5 -o channel.png
    featviz render efficientnet_lite0 class:285 'class:"daisy"' -o classes.png --steps 256
    featviz render efficientnet_lite0 '-channel:_blocks.10:5' -o negative.png
    """
    output = images.check_output(given["output"])
    if given["columns"] is not None and given["columns"] < 1:
        raise fv.FeatvizError(f"columns must be positive, not {given['columns']}")
    texts: list[str] = list(given["objectives"])
    if given["source"]:
        texts = [_recall(context, given)]
    if not given["model"] or not texts:
        raise fv.FeatvizError("give a model and at least one objective, such as class:285")
    goal = fv.objective(texts[0] if len(texts) == 1 else texts)
    model = fv.load(given["model"])
    watchers = [fv.callbacks.TensorBoard(given["tensorboard"])] if given["tensorboard"] else []
    begun = time.perf_counter()
    failed = None
    try:
        result = fv.render(
            model,
            goal,
            param=given["param"],
            transforms=given["transforms"],
            quality=given["quality"],
            steps=given["steps"],
            seed=given["seed"],
            size=given["size"],
            lr=given["lr"],
            redirect=given["redirect"],
            device=given["device"],
            precision=given["precision"],
            callbacks=watchers,
            progress=sys.stderr.isatty(),
            **({} if given["batch"] is None else {"batch_size": given["batch"]}),
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


def _recall(context: click.Context, given: dict[str, Any]) -> str:
    """Take from a picture what the command line does not say itself; return its objective."""
    path = given["source"]
    if given["model"]:
        raise fv.FeatvizError("--from repeats a picture: give it without a model and objectives")
    kept = images.read_settings(path)
    missing = [k for k in ("model", "goal", "seed", *_REPEATED) if kept.get(k) is None]
    if missing:
        raise fv.FeatvizError(
            f"{path!r} cannot be repeated from here: its {missing[0]} has no text; "
            "repeat it in Python"
        )
    if kept.get("optimizer") != "adam" or kept.get("schedule") is not None:
        raise fv.FeatvizError(
            f"{path!r} cannot be repeated from here: it was made with an optimizer of your own"
        )
    said = {
        name
        for name in (*_REPEATED, "seed")
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }
    if kept.get("steps_done", kept["steps"]) != kept["steps"] and "steps" not in said:
        raise fv.FeatvizError(
            f"{path!r} ended after {kept['steps_done']} of {kept['steps']} steps: say how many "
            "with --steps"
        )
    given["model"] = kept["model"]
    for name in (*_REPEATED, "seed"):
        if name not in said:
            given[name] = tuple(kept[name]) if name == "size" else kept[name]
    return str(kept["goal"])
