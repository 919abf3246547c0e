"""``featviz examples``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

import featviz as fv
from featviz.cli import options
from featviz.dataset_examples.result import MOST
from featviz.dataset_examples.settings import ExamplesSettings
from featviz.io.images import check_output


@click.command(cls=options.Command, context_settings=options.CONTEXT)
@click.argument("model")
@click.argument("images", metavar="IMAGES")
@click.option("--objective", "objectives", required=True, multiple=True, help="May be repeated.")
@click.option("-o", "--output", required=True, help="The sheet to write (.png).")
@click.option("-k", "k", type=int, default=None, help="Images at each end. Default: 9.")
@options.of(ExamplesSettings, skip=("k",))
@options.batch_size
@options.device
@options.as_json
def examples(**given: Any) -> int:
    r"""Find the images of the folder IMAGES with the highest and lowest values.

    \b
    featviz examples efficientnet_lite0 photos/ --objective channel:_blocks.10:5 -o units.png
    """
    output = check_output(given["output"])
    if not Path(given["images"]).exists():
        raise fv.FeatvizError(f"no folder {given['images']!r} of images")
    if len(given["objectives"]) > MOST:
        raise fv.FeatvizError(f"a sheet has at most {MOST} objectives")
    begun = time.perf_counter()
    result = fv.examples(
        fv.load(given["model"]),
        given["images"],
        list(given["objectives"]),
        batch_size=given["batch_size"],
        device=given["device"],
        progress=sys.stderr.isatty(),
        **options.given(given, ExamplesSettings),
    )
    (written,) = result.save(output)
    seconds = time.perf_counter() - begun
    if given["as_json"]:
        more = {"files": [str(written)], "seconds": round(seconds, 3)}
        document = {**result.record, **more, "interrupted": result.interrupted}
        click.echo(json.dumps(document, indent=1))
    else:
        for unit, text in enumerate(result.objectives):
            click.echo(_line(result, unit, text))
        click.echo(f"{result.count} images; {written}  ({seconds:.1f} s)")
    return 130 if result.interrupted else 0


def _line(result: fv.Examples, unit: int, text: str) -> str:
    ends = []
    for name, side in (("highest", result.top), ("lowest", result.bottom)):
        index = int(side.indices[unit, 0])
        if index >= 0:
            value = float(side.values[unit, 0])
            ends.append(f"{name} {value:.4g} {result.sources[index]}")
    median = float(result.statistics.quantile(0.5)[unit])
    return f"{text}: {', '.join([*ends, f'median {median:.4g}'])}"
