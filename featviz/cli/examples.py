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
from featviz.io import images


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.argument("dataset", metavar="IMAGES")
@click.option("--objective", "objectives", required=True, multiple=True, help="May be repeated.")
@click.option("-k", "k", type=int, default=9, show_default=True, help="Images at each end.")
@click.option("-o", "--output", required=True, help="The sheet to write (.png).")
@click.option("--batch-size", type=int, default=None, help="4 on a CPU, 32 elsewhere.")
@options.device
@options.precision
@options.as_json
def examples(**given: Any) -> int:
    r"""Find the pictures of the folder IMAGES with the highest and lowest values.

    \b
    featviz examples efficientnet_lite0 photos/ --objective channel:_blocks.10:5 -o units.png
    """
    output = images.check_output(given["output"])
    if not Path(given["dataset"]).exists():
        raise fv.FeatvizError(f"no folder {given['dataset']!r} of images")
    if len(given["objectives"]) > MOST:
        raise fv.FeatvizError(f"a sheet has at most {MOST} objectives")
    begun = time.perf_counter()
    result = fv.examples(
        fv.load(given["model"]),
        given["dataset"],
        list(given["objectives"]),
        progress=sys.stderr.isatty(),
        **{name: given[name] for name in ("k", "batch_size", "device", "precision")},
    )
    written = result.save(output)
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
    median = float(result.spread.quantile(0.5)[unit])
    return f"{text}: {', '.join([*ends, f'median {median:.4g}'])}"
