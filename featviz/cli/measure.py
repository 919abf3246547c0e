"""``featviz measure``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

import featviz as fv
from featviz.attribution.measures.comparison import compare_methods
from featviz.attribution.methods import METHODS
from featviz.cli import options
from featviz.io.dataset import picture_files
from featviz.io.inputs import read_images
from featviz.networks import devices
from featviz.validation import positive_int


@click.command(cls=options.Command, context_settings=options.CONTEXT)
@click.argument("model")
@click.argument("paths", metavar="IMAGE…", nargs=-1)
@click.option("--methods", multiple=True, metavar="METHOD...", help="Default: all.")
@click.option("--measures", multiple=True, metavar="MEASURE...", help="Default: all.")
@click.option(
    "--count", type=options.COUNT, help="How many of the images, in the order of their names."
)
@click.option(
    "--samples", type=options.COUNT, help="Random sets of cells for each fraction. Default: 16."
)
@click.option("--size", type=options.SIZE, help="Size that the images are resized to.")
@click.option("--seed", type=int, default=0, help="Seed of the first image. Default: 0.")
@options.device
@options.quiet
@options.as_json
def measure(**values: Any) -> int:
    r"""Print a table of attribution methods by measures, for MODEL and images or a folder.

    \b
    featviz measure efficientnet_lite0 photos/ --count 20
    featviz measure efficientnet_lite0 cat.png dog.png \
        --methods grad_cam kernel_shap --measures deletion insertion road seconds

    The predicted class of each image is explained. Arrows say which way is better;
    docs/attribution.md says what each measure is. It takes minutes for an image.
    """
    paths = [Path(p) for p in values["paths"]]
    files = [file for p in paths for file in (picture_files(p) if p.is_dir() else [p])]
    if not files:
        raise fv.FeatvizError("give images, or a folder of images")
    if values["count"] is not None:
        files = files[: positive_int("count", values["count"])]
    model = fv.load(values["model"])
    images = read_images(files, model.channels, model.size, "image", size=values["size"])
    model = model.on(devices.resolve(values["device"], model.device))
    names = list(values["methods"]) or list(METHODS)
    found = compare_methods(
        model,
        images,
        names,
        measures=list(values["measures"]) or None,
        seed=values["seed"],
        samples=values["samples"] or 16,
    )
    if values["as_json"]:
        document = {"images": [str(f) for f in files], **found.record}
        click.echo(json.dumps(document, indent=1, allow_nan=False))
    else:
        options.echo(found.markdown())
    return options.status(False, [], failed=not found.values)
