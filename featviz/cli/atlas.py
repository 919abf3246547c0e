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
@click.option("-o", "--output", required=True, help="The folder, or a URL such as s3://bucket/x.")
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
    help="A folder: which of its images excite each unit most and least.",
)
@options.of(AtlasSettings)
@options.of(Settings)
@options.batch_size
@options.device
@options.as_json
def atlas(**given: Any) -> int:
    r"""Render every unit of some layers of MODEL; continue where an earlier run ended.

    \b
    featviz atlas efficientnet_lite0 -o atlas --layers _blocks.4 _blocks.10 --units 0:32
    featviz atlas efficientnet_lite0 -o atlas --layers '_blocks.*' --workers 2 --images photos
    featviz view atlas
    """
    layers = [*given["layers"], *given["more"]]
    if not layers:
        raise fv.FeatvizError("give --layers: featviz layers MODEL lists them")
    chosen = options.given(given, AtlasSettings, Settings)
    AtlasSettings(workers=chosen.get("workers", 0)).check()
    model = fv.load(given["model"])
    begun = time.perf_counter()
    made = 0

    def count(rows: list[Any]) -> None:
        nonlocal made
        made += len(rows)

    result = fv.atlas(
        model,
        layers,
        out=given["output"],
        images=given["images"],
        batch_size=given["batch_size"],
        device=given["device"],
        on_stored=[count],
        progress=True,
        **chosen,
    )
    seconds = time.perf_counter() - begun
    failed = {
        f"{row['objective']} seed {row['seed']}": row["failure"]
        for row in result.records.select(["objective", "seed", "failure"]).to_pylist()
        if row["failure"]
    }
    if given["as_json"]:
        document = {
            "atlas": given["output"],
            "pictures": len(result),
            "made": made,
            "seconds": round(seconds, 3),
            "layers": {name: len(result.units(name)) for name in result.layers},
            "failures": failed,
            "interrupted": result.interrupted,
        }
        click.echo(json.dumps(document, indent=1))
    else:
        if failed:
            name, why = next(iter(failed.items()))
            more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
            print(f"featviz: warning: {name}{more}: {why}", file=sys.stderr)
        click.echo(f"{made} images made, {len(result)} in {given['output']}  ({seconds:.1f} s)")
    return 130 if result.interrupted else 0
