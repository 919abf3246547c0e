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
@click.option(
    "--size", type=options.SIZE, help="Size to measure at [default: 224, or the model's]."
)
@click.option("--gray", is_flag=True, help="Measure one channel instead of three.")
@click.option("--model", help="Measure this network's activations instead, for activation_prior.")
@options.quiet
def calibrate(
    images: str, output: str, size: tuple[int, int] | None, gray: bool, model: str | None
) -> None:
    r"""Measure the colour statistics and spectrum of a folder of IMAGES.

    With --model, measure how a network's activations vary from image to image.

    \b
    featviz calibrate photos/ -o stats.safetensors
    featviz render efficientnet_lite0 class:285 \
        --param fourier:stats=stats.safetensors
    featviz calibrate photos/ --model efficientnet_lite0 -o lite0.safetensors
    featviz render efficientnet_lite0 \
        'class:285 + 10*activation_prior:"lite0.safetensors"'
    """
    path = Path(output)
    if path.suffix != ".safetensors" or not path.parent.is_dir():
        raise fv.FeatvizError(
            f"cannot write {output!r}: give a .safetensors file in an existing folder"
        )
    check_writable(path)
    if model is not None:
        if gray:
            raise fv.FeatvizError("--gray is for images: the channels are those of --model")
        network = fv.load(model)
        measured = fv.calibrate(images, model=network, size=size, progress=options.progress())
        measured.save(path)
        options.echo(f"{output}: {measured.count} images, {len(measured.layers)} layers")
        return
    channels = 1 if gray else 3
    stats = fv.calibrate(images, size=size, channels=channels, progress=options.progress())
    stats.save(path)
    options.echo(f"{output}: {stats.count} images, mean {_row(stats.mean.tolist())}")


def _row(values: list[float]) -> str:
    return " ".join(f"{v:.3f}" for v in values)
