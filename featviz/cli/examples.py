"""``featviz examples``."""

from __future__ import annotations

import json
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
@click.option(
    "--objective",
    "objectives",
    required=True,
    multiple=True,
    help="Objective to measure; may be repeated.",
)
@click.option("-o", "--output", help="Sheet to write (.png). Default: examples.png.")
@click.option(
    "-k", "k", type=int, default=None, help="Number of top and of bottom images. Default: 9."
)
@options.of(ExamplesSettings, skip=("k",))
@options.batch_size
@options.device
@options.quiet
@options.as_json
def examples(**values: Any) -> int:
    r"""Find the images with the highest and lowest values in the folder IMAGES.

    \b
    featviz examples efficientnet_lite0 photos/ --objective channel:_blocks.10:5
    """
    output = check_output(options.output(values["output"], "examples"))
    if not Path(values["images"]).exists():
        raise fv.FeatvizError(f"no folder {values['images']!r} of images")
    if len(values["objectives"]) > MOST:
        raise fv.FeatvizError(f"a sheet has at most {MOST} objectives")
    started = time.perf_counter()
    result = fv.examples(
        fv.load(values["model"]),
        values["images"],
        list(values["objectives"]),
        batch_size=values["batch_size"],
        device=values["device"],
        progress=options.progress(),
        **options.given(values, ExamplesSettings),
    )
    (written,) = result.save(output)
    seconds = time.perf_counter() - started
    if values["as_json"]:
        output_info = {"files": [str(written)], "seconds": round(seconds, 3)}
        document = {**result.record, **output_info, "interrupted": result.interrupted}
        click.echo(json.dumps(document, indent=1))
    else:
        for unit, text in enumerate(result.objectives):
            options.echo(_line(result, unit, text))
        options.echo(f"{result.count} images; {written}  ({seconds:.1f} s)")
    return options.status(result.interrupted, [written])


def _line(result: fv.Examples, unit: int, text: str) -> str:
    parts = []
    for name, side in (("highest", result.top), ("lowest", result.bottom)):
        index = int(side.indices[unit, 0])
        if index >= 0:
            value = float(side.values[unit, 0])
            parts.append(f"{name} {value:.4g} {result.sources[index]}")
    median = float(result.statistics.quantile(0.5)[unit])
    return f"{text}: {', '.join([*parts, f'median {median:.4g}'])}"
