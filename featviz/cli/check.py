"""``featviz check``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

import featviz as fv
from featviz.checks.api import recall
from featviz.checks.settings import CheckSettings
from featviz.cli import options
from featviz.io import images
from featviz.networks.zoo import SOURCES, efficientnet, exported
from featviz.optim.settings import Settings


@click.command(cls=options.Command, context_settings=options.CONTEXT)
@click.argument("model", required=False)
@click.argument("objectives", nargs=-1)
@click.option("-o", "--output", help="The sheet to write (.png); one for each objective.")
@click.option(
    "--from", "source", metavar="PNG", help="Make the image of this file again, and check it."
)
@click.option("--images", metavar="IMAGES", help="A folder of natural images to compare with.")
@click.option(
    "--judges",
    multiple=True,
    metavar="MODEL...",
    help="Networks with the same classes; of an embedded network its siblings if not given.",
)
@options.of(CheckSettings, skip=("k",))
@click.option("-k", "k", type=int, default=None, help="Images that count as best. Default: 9.")
@click.option("--no-randomize", is_flag=True, help="Do without the network of permuted weights.")
@options.of(Settings)
@click.option("--seed", type=int, default=None, help="The first image's seed. Default: 0.")
@options.batch_size
@options.device
@options.as_json
def check(**given: Any) -> int:
    r"""Say whether the images of OBJECTIVES can be trusted, by six criteria.

    \b
    featviz check efficientnet_lite0 class:285 --images photos/ -o sheet.png
    featviz check efficientnet_lite0 channel:_blocks.10:5 --judges efficientnet_lite1 --json
    """
    output = images.check_output(given["output"]) if given["output"] else None
    if given["images"] and not Path(given["images"]).exists():
        raise fv.FeatvizError(f"no folder {given['images']!r} of images")
    objectives, judges = _sorted(given["objectives"], given["judges"])
    chosen = options.given(given, Settings)
    name, seed, settings = given["model"], given["seed"], None
    if given["source"]:
        if name and not objectives and given["judges"]:  # --judges A B: B stands first
            judges, name = [*judges, name], None
        if name or objectives or chosen or seed is not None:
            raise fv.FeatvizError("--from takes model, objective, seed and settings from the image")
        name, objectives, seed, settings = _recall(given["source"])
    if not name or not objectives:
        raise fv.FeatvizError("give a model and at least one objective, such as class:285")
    begun = time.perf_counter()
    result = fv.check(
        fv.load(name),
        objectives,
        images=given["images"],
        judges=judges or None,
        randomize=not given["no_randomize"],
        settings=settings,
        seed=seed or 0,
        batch_size=given["batch_size"],
        device=given["device"],
        progress=sys.stderr.isatty(),
        **{k: given[k] for k in ("seeds", "k") if given[k] is not None},
        **chosen,
    )
    written = [str(p) for p in result.save(output)] if output else []
    seconds = round(time.perf_counter() - begun, 3)
    if given["as_json"]:
        document = {**result.record, "files": written, "seconds": seconds}
        click.echo(json.dumps(document, indent=1, allow_nan=False))
    else:
        click.echo(str(result))
        click.echo(f"{', '.join(written)}  ({seconds:.1f} s)".strip())
    return 130 if result.interrupted else 0


def _sorted(words: tuple[str, ...], named: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return objectives and judges: after ``--judges A`` further networks stand among the words."""
    judges = [name for word in named for name in word.split(",")]
    more = [w for w in words if _network(w)]
    if more and not judges:
        raise fv.FeatvizError(f"{more[0]!r} is a network, not an objective: say --judges before it")
    return [w for w in words if w not in more], judges + more


def _network(word: str) -> bool:
    """Tell a network from an objective: by its name, its ending or the dots of its module."""
    first = word.partition(":")[0]
    known = word in efficientnet.NAMES or first in SOURCES or word.endswith(exported.SUFFIX)
    return known or (first.count(".") > 0 and all(p.isidentifier() for p in first.split(".")))


def _recall(path: str) -> tuple[str, list[str], int, Settings]:
    record = images.read_settings(path)
    if record.get("model") is None:
        raise fv.FeatvizError(f"{path!r} does not say which network made it: give the objective")
    try:
        settings = recall(record)
    except fv.FeatvizError as error:
        raise fv.FeatvizError(f"{path!r} cannot be checked: {error}") from error
    texts, seeds = record["objective"], record["seed"]
    if len(set(seeds)) > 1:
        raise fv.FeatvizError(f"{path!r} holds images of several seeds: check one of them")
    return record["model"], texts, seeds[0], settings
