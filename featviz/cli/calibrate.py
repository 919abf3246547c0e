"""``featviz calibrate``."""

from __future__ import annotations

from pathlib import Path

import click

import featviz as fv
from featviz.cli import options
from featviz.io.files import check_writable


@click.command(cls=options.Command, context_settings=options.CONTEXT)
@click.argument("images")
@click.option(
    "-o",
    "--output",
    default="stats.safetensors",
    show_default=True,
    help="Statistics file to write (.safetensors).",
)
@click.option("--size", type=options.SIZE, default="224", show_default=True)
@click.option("--gray", is_flag=True, help="Measure one channel instead of three.")
@options.quiet
def calibrate(images: str, output: str, size: tuple[int, int], gray: bool) -> None:
    r"""Measure the colour statistics and spectrum of a folder of IMAGES.

    \b
    featviz calibrate photos/ -o stats.safetensors
    featviz render efficientnet_lite0 class:285 \
        --param fourier:stats=stats.safetensors
    """
    path = Path(output)
    if path.suffix != ".safetensors" or not path.parent.is_dir():
        raise fv.FeatvizError(
            f"cannot write {output!r}: give a .safetensors file in an existing folder"
        )
    check_writable(path)
    stats = fv.calibrate(images, size=size, channels=1 if gray else 3, progress=options.progress())
    stats.save(path)
    options.echo(f"{output}: {stats.count} images, mean {_row(stats.mean.tolist())}")


def _row(values: list[float]) -> str:
    return " ".join(f"{v:.3f}" for v in values)
