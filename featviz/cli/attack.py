"""``featviz attack``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

import featviz as fv
from featviz.attacks.settings import AttackSettings, PatchSettings
from featviz.cli import options
from featviz.io import images, sheets
from featviz.io.inputs import read_images


@click.command(cls=options.Command, context_settings=options.CONTEXT)
@click.argument("model")
@click.argument("pictures", metavar="IMAGE…", nargs=-1)
@click.option("-o", "--output", required=True, help="The sheet to write (.png).")
@click.option("--away", help="What it shall no longer be: class:285, or any objective to lower.")
@click.option("--to", help="What it shall be instead: class:281, or any objective to raise.")
@options.of(AttackSettings)
@click.option("--patch", type=options.SIZE, help="A patch of this side instead of a difference.")
@click.option("--size", type=options.SIZE, help="What the images are resized to; the model's own.")
@options.seed
@options.batch_size
@click.option("--separate", is_flag=True, help="Also write each result, and the patch, by itself.")
@options.device
@options.as_json
def attack(**given: Any) -> int:
    r"""Change each IMAGE, imperceptibly, until MODEL misclassifies it.

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
    names = list(given["pictures"])
    pictures = read_images(names, model.channels, model.size, "image", size=given["size"])
    shared: dict[str, Any] = {name: given[name] for name in ("away", "to", "device")}
    shared |= {"seed": given["seed"] or 0, "progress": sys.stderr.isatty()}
    if given["batch_size"] is not None:
        shared["batch_size"] = given["batch_size"]
    if given["patch"]:
        chosen = options.given({**given, "size": given["patch"]}, PatchSettings)
        result = fv.patch_attack(model, pictures, **shared, **chosen)
    else:
        chosen = options.given(given, AttackSettings)
        result = fv.attack(model, pictures, eight_bit=True, **shared, **chosen)
    written = result.save(output, separate=given["separate"])
    if given["patch"]:
        place = output.with_name(f"{output.stem}.patch{output.suffix}")
        written.append(images.save(sheets.to_pil(result.patch), place, result.record))
    _report(result, names, written, given["as_json"])
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
