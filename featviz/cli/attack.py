"""``featviz attack``."""

from __future__ import annotations

import json
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
@click.argument("paths", metavar="IMAGE…", nargs=-1)
@click.option("-o", "--output", help="Sheet to write (.png). Default: attack.png.")
@click.option(
    "--away",
    help="Class to lead away from, such as class:285, or any objective to minimize. "
    "Default: the predicted class, without --to.",
)
@click.option("--to", help="Target class, such as class:281, or any objective to maximize.")
@options.of(AttackSettings)
@click.option(
    "--patch", type=options.SIZE, help="Optimize a patch of this side instead of a perturbation."
)
@click.option(
    "--size",
    type=options.SIZE,
    help="Size that the images are resized to. Default: the model's own.",
)
@options.seed
@options.batch_size
@click.option(
    "--separate", is_flag=True, help="Also write each result, and the patch, to a file of its own."
)
@options.device
@options.quiet
@options.as_json
def attack(**values: Any) -> int:
    r"""Perturb each IMAGE imperceptibly until MODEL misclassifies it.

    \b
    featviz attack efficientnet_lite0 cat.png -o fooled.png --away class:285
    featviz attack efficientnet_lite0 cat.png --to class:207 --eps min
    featviz attack efficientnet_lite0 *.jpg -o patch.png --to class:954 --patch 60
    """
    output = images.check_output(options.output(values["output"], "attack"))
    if not values["paths"]:
        raise fv.FeatvizError("give at least one image to attack")
    model = fv.load(values["model"])
    names = list(values["paths"])
    inputs = read_images(
        names, model.channels, model.size, "image", size=values["size"], crop=model.crop
    )
    shared: dict[str, Any] = {name: values[name] for name in ("away", "to", "device")}
    shared |= {"seed": values["seed"] or 0, "progress": options.progress()}
    if values["batch_size"] is not None:
        shared["batch_size"] = values["batch_size"]
    if values["patch"]:
        settings = options.given({**values, "size": values["patch"]}, PatchSettings)
        result = fv.patch_attack(model, inputs, **shared, **settings)
    else:
        settings = options.given(values, AttackSettings)
        result = fv.attack(model, inputs, eight_bit=True, **shared, **settings)
    written = result.save(output, separate=values["separate"])
    if values["patch"]:
        patch_path = output.with_name(f"{output.stem}.patch{output.suffix}")
        written.append(images.save(sheets.to_pil(result.patch), patch_path, result.record))
    _report(result, names, written, values["as_json"])
    return options.status(result.interrupted, written)


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
        options.echo(f"{name}: {label}")
    fooled = f"{int(result.success.sum())} of {len(result)} fooled"
    options.echo(f"{fooled}; {', '.join(map(str, written))}  ({result.seconds:.1f} s)")
