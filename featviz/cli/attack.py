"""``featviz attack``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import torch

import featviz as fv
from featviz.attacks.algorithms import METHODS
from featviz.attacks.criterion import LOSSES
from featviz.cli import options
from featviz.io import images
from featviz.param.balls import NORMS


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.argument("pictures", metavar="IMAGE…", nargs=-1)
@click.option("-o", "--output", required=True, help="The sheet to write (.png).")
@click.option("--away", help="What it shall no longer be: class:285, or any objective to lower.")
@click.option("--to", help="What it shall be instead: class:281, or any objective to raise.")
@click.option("--norm", default="linf", show_default=True, help=", ".join(NORMS))
@click.option("--eps", default="4/255", show_default=True, help="The radius, or min: the smallest.")
@click.option("--steps", type=int, default=None, help="Updates: 20, for a patch 200.")
@click.option("--step-size", type=float, default=None, help="2.5 eps / steps if not given.")
@click.option("--method", default="pgd", show_default=True, help=", ".join(METHODS))
@click.option("--loss", default="ce", show_default=True, help=", ".join(LOSSES))
@click.option("--restarts", type=int, default=1, show_default=True)
@click.option("--transforms", default="none", show_default=True, help="What it has to survive.")
@click.option("--eot", type=int, default=1, show_default=True, help="Draws of them in each step.")
@click.option("--universal", is_flag=True, help="One difference for all the pictures.")
@click.option("--patch", type=options.SIZE, help="A patch of this side instead of a difference.")
@click.option("--size", type=options.SIZE, help="What the images are resized to; the model's own.")
@click.option("--seed", type=options.SEED, default="0", show_default=True)
@click.option("--separate", is_flag=True, help="Also write each result, and the patch, by itself.")
@options.device
@options.precision
@options.as_json
def attack(**given: Any) -> int:
    r"""Change each IMAGE, unseen, until MODEL sees something else in it.

    \b
    featviz attack efficientnet_lite0 cat.png -o fooled.png --away class:285
    featviz attack efficientnet_lite0 cat.png -o dog.png --to 'class:"golden retriever"' --eps min
    featviz attack efficientnet_lite0 *.jpg -o patch.png --to class:954 --patch 60
    """
    output = images.check_output(given["output"])
    if not given["pictures"]:
        raise fv.FeatvizError("give at least one image to attack")
    if given["to"] is None and given["away"] is None:
        raise fv.FeatvizError("say what to attack: --away class:285, --to class:281 or both")
    model = fv.load(given["model"])
    size = given["size"] or model.size
    pictures = torch.cat([images.read(p, model.channels, size) for p in given["pictures"]])
    shared = {
        name: given[name]
        for name in ("away", "to", "loss", "transforms", "seed", "device", "precision")
    }
    shared |= {} if given["steps"] is None else {"steps": given["steps"]}
    shared |= {"progress": sys.stderr.isatty()}
    if given["patch"]:
        result = fv.patch_attack(model, pictures, size=given["patch"], **shared)
    else:
        own = ("norm", "eps", "step_size", "method", "restarts", "eot", "universal")
        result = fv.attack(
            model, pictures, eight_bit=True, **shared, **{name: given[name] for name in own}
        )
    written = result.save(output, separate=given["separate"])
    if given["patch"]:
        place = output.with_name(f"{output.stem}.patch{output.suffix}")
        written.append(images.save(images.to_pil(result.patch), place, result.record))
    _report(result, list(given["pictures"]), written, given["as_json"])
    return 130 if result.interrupted else 0


def _report(result: fv.AttackResult, names: list[str], written: list[Path], as_json: bool) -> None:
    if as_json:
        document = {
            **result.record,
            "images": names,
            "files": [str(p) for p in written],
            "seconds": round(result.seconds, 3),
            "interrupted": result.interrupted,
        }
        click.echo(json.dumps(document, indent=1))
        return
    for name, label in zip(names, result.labels, strict=True):
        click.echo(f"{name}: {label}")
    fooled = f"{int(result.success.sum())} of {len(result)} fooled"
    click.echo(f"{fooled}; {', '.join(map(str, written))}  ({result.seconds:.1f} s)")
