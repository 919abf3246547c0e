"""``featviz atlas``."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

import featviz as fv
from featviz.atlases.settings import AtlasSettings
from featviz.cli import options
from featviz.optim.settings import Settings


@click.command(cls=options.Command, context_settings=options.CONTEXT)
@click.argument("model")
@click.argument("more", nargs=-1, metavar="[LAYER]...")
@click.option(
    "-o", "--output", required=True, help="Folder to write, or a URL such as s3://bucket/x."
)
@click.option(
    "--layers",
    multiple=True,
    metavar="LAYER...",
    help="Layers, or patterns such as '_blocks.*'; featviz layers MODEL lists them.",
)
@click.option(
    "--images",
    "--examples",
    "images",
    metavar="IMAGES",
    help="Folder of images in which to find those that activate each unit most and least.",
)
@options.of(AtlasSettings)
@options.of(Settings)
@options.batch_size
@options.device
@options.quiet
@options.as_json
def atlas(**values: Any) -> int:
    r"""Render every unit of some layers of MODEL, or resume an earlier run.

    \b
    featviz atlas efficientnet_lite0 -o atlas --layers _blocks.4 --units 0:32
    featviz atlas efficientnet_lite0 -o atlas --layers '_blocks.*' --workers 2
    featviz view atlas
    """
    layers = [*values["layers"], *values["more"]]
    if not layers:
        raise fv.FeatvizError("give --layers: featviz layers MODEL lists them")
    settings = options.given(values, AtlasSettings, Settings)
    AtlasSettings(workers=settings.get("workers", 0))
    model = fv.load(values["model"])
    started = time.perf_counter()
    new_images = 0

    def count(rows: list[Any]) -> None:
        nonlocal new_images
        new_images += len(rows)

    result = fv.atlas(
        model,
        layers,
        out=values["output"],
        images=values["images"],
        batch_size=values["batch_size"],
        device=values["device"],
        on_stored=[count],
        progress=not options.is_quiet(),
        **settings,
    )
    seconds = time.perf_counter() - started
    failures = {
        f"{row['objective']} seed {row['seed']}": row["failure"]
        for row in result.records.select(["objective", "seed", "failure"]).to_pylist()
        if row["failure"]
    }
    if values["as_json"]:
        document = {
            "atlas": values["output"],
            "pictures": len(result),
            "made": new_images,
            "seconds": round(seconds, 3),
            "layers": {name: len(result.units(name)) for name in result.layers},
            "failures": failures,
            "interrupted": result.interrupted,
        }
        click.echo(json.dumps(document, indent=1))
    else:
        if failures:
            name, why = next(iter(failures.items()))
            more = f" and {len(failures) - 1} more" if len(failures) > 1 else ""
            print(f"featviz: warning: {name}{more}: {why}", file=sys.stderr)
        options.echo(
            f"{new_images} images rendered, {len(result)} in {values['output']}  ({seconds:.1f} s)"
        )
    return options.status(result.interrupted, [f"{len(result)} images in {values['output']}"])
