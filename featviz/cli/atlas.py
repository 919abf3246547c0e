"""``featviz atlas``."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

import featviz as fv
from featviz.cli import options


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.argument("more", nargs=-1, metavar="[LAYER]...")
@click.option("-o", "--output", required=True, help="The folder, or a URL such as s3://bucket/x.")
@click.option(
    "--layers",
    multiple=True,
    metavar="LAYER...",
    help="Layers, or patterns such as '_blocks.*'; featviz layers MODEL lists them.",
)
@click.option("--units", default=None, help="0:32, 3,7 or 0:64:4; all if not given.")
@click.option(
    "--signs", default="+-", show_default=True, help="+ for what raises a unit, - for what lowers."
)
@click.option(
    "--seeds", type=options.SEED, default="0", show_default=True, help="One picture a seed: 0,1,2."
)
@click.option(
    "--objective",
    default=None,
    metavar="TEXT",
    help="What is shown; channel:{layer}:{unit} if not given.",
)
@click.option("--examples", metavar="IMAGES", help="A folder: what of it each unit likes most.")
@click.option("--workers", type=int, default=0, help="Local processes; this one alone if 0.")
@click.option("--ray", metavar="ADDRESS", help="A Ray cluster does it: auto, or host:6379.")
@click.option("--param", default="fourier", show_default=True, help="As in featviz render.")
@click.option("--transforms", default=None, help="As in featviz render.")
@click.option("--quality", default="standard", show_default=True, help="fast, standard or best.")
@click.option("--steps", type=int, default=None, help="Updates; 512 in standard quality.")
@click.option("--size", type=options.SIZE, help="Side in pixels; the model's own if not given.")
@click.option("--lr", type=float, default=None, help="Learning rate of Adam.")
@click.option("--batch", type=int, default=None, help="Pictures made, and stored, at once.")
@click.option("--encoding", type=click.Choice(["png", "webp"]), default="png", show_default=True)
@click.option("--beside", is_flag=True, help="Keep pictures made with other settings, too.")
@options.tensorboard
@options.device
@options.precision
@options.as_json
def atlas(**given: Any) -> int:
    r"""Render every unit of some layers of MODEL; go on where an earlier run ended.

    \b
    featviz atlas efficientnet_lite0 -o atlas --layers _blocks.4 _blocks.10 --units 0:32
    featviz atlas efficientnet_lite0 -o atlas --layers '_blocks.*' --workers 2 --examples photos
    featviz view atlas
    """
    layers = [*given["layers"], *given["more"]]
    if not layers:
        raise fv.FeatvizError("give --layers: featviz layers MODEL lists them")
    if given["ray"] and given["workers"] < 0:
        raise fv.FeatvizError("workers must not be negative")
    model = fv.load(given["model"])
    begun = time.perf_counter()
    made = 0

    def count(rows: list[Any]) -> None:
        nonlocal made
        made += len(rows)

    found = fv.atlas(
        model,
        layers,
        out=given["output"],
        units=given["units"],
        signs=given["signs"],
        seeds=given["seeds"],
        objective=given["objective"],
        param=given["param"],
        transforms=given["transforms"],
        quality=given["quality"],
        steps=given["steps"],
        size=given["size"],
        lr=given["lr"],
        examples=given["examples"],
        workers=given["workers"],
        ray=given["ray"],
        batch_size=given["batch"],
        encoding=given["encoding"],
        beside=given["beside"],
        device=given["device"],
        precision=given["precision"],
        tensorboard=given["tensorboard"],
        callbacks=[count],
        progress=True,
    )
    seconds = time.perf_counter() - begun
    failed = {
        f"{row['objective']} seed {row['seed']}": row["failure"]
        for row in found.records.select(["objective", "seed", "failure"]).to_pylist()
        if row["failure"]
    }
    if given["as_json"]:
        document = {
            "atlas": given["output"],
            "pictures": len(found),
            "made": made,
            "seconds": round(seconds, 3),
            "layers": {name: len(found.units(name)) for name in found.layers},
            "failures": failed,
            "interrupted": found.interrupted,
        }
        click.echo(json.dumps(document, indent=1))
    else:
        if failed:
            name, why = next(iter(failed.items()))
            more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
            print(f"featviz: warning: {name}{more}: {why}", file=sys.stderr)
        click.echo(f"{made} pictures made, {len(found)} in {given['output']}  ({seconds:.1f} s)")
    return 130 if found.interrupted else 0
