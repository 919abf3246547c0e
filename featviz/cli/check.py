"""``featviz check``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

import featviz as fv
from featviz import plugins
from featviz.checks.api import recall
from featviz.checks.settings import CheckSettings
from featviz.cli import options
from featviz.io import images
from featviz.networks.zoo import SOURCES, efficientnet, exported
from featviz.objectives.unit import KINDS
from featviz.optim.settings import Settings
from featviz.optim.stored_run import StoredRun


@click.command(cls=options.Command, context_settings=options.CONTEXT)
@click.argument("model", required=False)
@click.argument("objectives", nargs=-1)
@click.option("-o", "--output", help="Sheet to write (.png); one for each objective.")
@click.option(
    "--from", "source", metavar="PNG", help="Render the image in this file again, and check it."
)
@options.trust
@click.option("--images", metavar="IMAGES", help="Folder of natural images to compare with.")
@click.option(
    "--judges",
    multiple=True,
    metavar="MODEL...",
    help="Judge networks with the same classes. Default: an embedded network's siblings.",
)
@options.of(CheckSettings, skip=("k",))
@click.option(
    "-k", "k", type=int, default=None, help="Number of top images to compare with. Default: 9."
)
@click.option("--no-randomize", is_flag=True, help="Skip the check with permuted weights.")
@options.of(Settings)
@click.option("--seed", type=int, default=None, help="Seed of the first image. Default: 0.")
@options.batch_size
@options.device
@options.quiet
@options.as_json
def check(**values: Any) -> int:
    r"""Check whether the images of OBJECTIVES can be trusted, by seven criteria.

    \b
    featviz check efficientnet_lite0 class:285 --images photos/ -o sheet.png
    featviz check efficientnet_lite0 channel:_blocks.10:5 --json
    """
    output = images.check_output(values["output"]) if values["output"] is not None else None
    if values["images"] and not Path(values["images"]).exists():
        raise fv.FeatvizError(f"no folder {values['images']!r} of images")
    objectives, judges = _split_judges(values["objectives"], values["judges"])
    overrides = options.given(values, Settings)
    name, seed, settings = values["model"], values["seed"], None
    if values["source"] is not None:
        if name and not objectives and values["judges"]:  # --judges A B: B was parsed as the model
            judges, name = [*judges, name], None
        if objectives or overrides or seed is not None:
            raise fv.FeatvizError("--from reads objective, seed and settings from the image")
        values["model"] = name
        stored = _recall(values["source"], named=bool(name))
        name, settings, seed = name or stored.model, stored.settings, stored.seeds[0]
        objectives = list(stored.objectives)
    if not name or not objectives:
        raise fv.FeatvizError("give a model and at least one objective, such as class:285")
    started = time.perf_counter()
    result = fv.check(
        options.load(name, values),
        objectives,
        images=values["images"],
        judges=judges or None,
        randomize=not values["no_randomize"],
        settings=settings,
        seed=seed or 0,
        batch_size=values["batch_size"],
        device=values["device"],
        progress=options.progress(),
        **{k: values[k] for k in ("seeds", "k") if values[k] is not None},
        **overrides,
    )
    written = [str(p) for p in result.save(output)] if output else []
    seconds = round(time.perf_counter() - started, 3)
    if values["as_json"]:
        document = {**result.record, "files": written, "seconds": seconds}
        click.echo(json.dumps(document, indent=1, allow_nan=False))
    else:
        options.echo(str(result))
        options.echo(f"{', '.join(written)}  ({seconds:.1f} s)".strip())
    return options.status(result.interrupted, written or ["nothing: no -o was given"])


def _split_judges(
    words: tuple[str, ...], judge_options: tuple[str, ...]
) -> tuple[list[str], list[str]]:
    """Return objectives and judges; networks after ``--judges A`` are parsed as objectives."""
    judges = [name for word in judge_options for name in word.split(",")]
    networks = [w for w in words if _is_network(w)]
    if networks and not judges:
        raise fv.FeatvizError(
            f"{networks[0]!r} is a network, not an objective: put --judges before it"
        )
    return [w for w in words if w not in networks], judges + networks


def _is_network(word: str) -> bool:
    """Return whether a word is a network: by its name, its suffix or its dotted module path."""
    first = word.partition(":")[0]
    families = {*SOURCES, *plugins.names(plugins.NETWORKS)} - {*KINDS}
    known = word in efficientnet.NAMES or first in families or word.endswith(exported.SUFFIX)
    return known or (first.count(".") > 0 and all(p.isidentifier() for p in first.split(".")))


def _recall(path: str, *, named: bool) -> StoredRun:
    record = images.read_settings(path)
    if record.get("model") is None and not named:
        raise fv.FeatvizError(f"{path!r} does not record its network: give the objective")
    try:
        recall(record)
        stored = StoredRun.of(record)
    except fv.FeatvizError as error:
        raise fv.FeatvizError(f"{path!r} cannot be checked: {error}") from error
    if len(set(stored.seeds)) > 1:
        raise fv.FeatvizError(f"{path!r} contains images of several seeds: check one of them")
    return stored
