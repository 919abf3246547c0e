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
from featviz.cli import options
from featviz.io import images
from featviz.networks.zoo import SOURCES, efficientnet, exported

#: What is handed on as it was given, where it was.
_PASSED = ("steps", "param", "transforms", "size", "lr", "quality")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", required=False)
@click.argument("objectives", nargs=-1)
@click.option("-o", "--output", help="The sheet to write (.png); one for each objective.")
@click.option(
    "--from", "source", metavar="PNG", help="Make the picture of this file again, and check it."
)
@click.option("--images", metavar="IMAGES", help="A folder of natural pictures to compare with.")
@click.option(
    "--judges",
    multiple=True,
    metavar="MODEL...",
    help="Networks with the same classes; of an embedded network its siblings if not given.",
)
@click.option("--seeds", type=int, default=3, show_default=True, help="Pictures of each objective.")
@click.option("--seed", type=int, default=0, show_default=True, help="The first one's seed.")
@click.option("--no-randomize", is_flag=True, help="Do without the network of permuted weights.")
@click.option("-k", "k", type=int, default=9, show_default=True, help="Images that count as best.")
@click.option("--quality", default=None, help="fast, standard (if not given) or best.")
@click.option("--steps", type=int, default=None, help="Updates; 512 in standard quality.")
@click.option("--size", type=options.SIZE, help="Side in pixels; the model's own if not given.")
@click.option("--param", default=None, help="As in featviz render.")
@click.option("--transforms", default=None, help="As in featviz render.")
@click.option("--lr", type=float, default=None, help="Learning rate of Adam.")
@options.device
@options.precision
@options.as_json
def check(**given: Any) -> int:
    r"""Say whether the pictures of OBJECTIVES can be trusted, by six criteria.

    \b
    featviz check efficientnet_lite0 class:285 --images photos/ -o sheet.png
    featviz check efficientnet_lite0 channel:_blocks.10:5 --judges efficientnet_lite1 --json
    """
    output = images.check_output(given["output"]) if given["output"] else None
    if given["images"] and not Path(given["images"]).exists():
        raise fv.FeatvizError(f"no folder {given['images']!r} of images")
    objectives, judges = _sorted(given["objectives"], given["judges"])
    chosen = {name: given[name] for name in _PASSED if given[name] is not None}
    chosen |= {"seed": given["seed"], "precision": given["precision"]}
    if given["source"]:
        if given["model"] and not objectives and given["judges"]:  # --judges A B: B stands first
            judges, given["model"] = [*judges, given["model"]], None
        said = click.get_current_context().get_parameter_source
        for name in ("seed", "precision"):
            if said(name) is not click.core.ParameterSource.DEFAULT:
                raise fv.FeatvizError(f"--from takes the {name} from the picture, too")
        if given["model"] or objectives or len(chosen) > 2:
            raise fv.FeatvizError("--from takes model, objective and settings from the picture")
        given["model"], objectives, chosen = _recall(given["source"])
    if not given["model"] or not objectives:
        raise fv.FeatvizError("give a model and at least one objective, such as class:285")
    begun = time.perf_counter()
    found = fv.check(
        fv.load(given["model"]),
        objectives,
        images=given["images"],
        judges=judges or None,
        seeds=given["seeds"],
        randomize=not given["no_randomize"],
        k=given["k"],
        device=given["device"],
        progress=sys.stderr.isatty(),
        **chosen,
    )
    written = [str(p) for p in found.save(output)] if output else []
    seconds = round(time.perf_counter() - begun, 3)
    if given["as_json"]:
        document = {**found.record, "files": written, "seconds": seconds}
        click.echo(json.dumps(document, indent=1, allow_nan=False))
    else:
        click.echo(str(found))
        click.echo(f"{', '.join(written)}  ({seconds:.1f} s)".strip())
    return 130 if found.interrupted else 0


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


def _recall(path: str) -> tuple[str, list[str], dict[str, Any]]:
    kept = images.read_settings(path)
    if kept.get("model") is None:
        raise fv.FeatvizError(f"{path!r} does not say which network made it: give the objective")
    try:
        settings = recall(kept)
    except fv.FeatvizError as error:
        raise fv.FeatvizError(f"{path!r} cannot be checked: {error}") from error
    texts, seeds = kept["objective"], kept["seed"]
    if len(set(seeds)) > 1:
        raise fv.FeatvizError(f"{path!r} holds pictures of several seeds: check one of them")
    return kept["model"], texts, {**settings, "seed": seeds[0]}
