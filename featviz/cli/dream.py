"""``featviz dream``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

import featviz as fv
from featviz.cli import options
from featviz.dreaming.settings import DreamSettings
from featviz.io import images, video
from featviz.io.inputs import read_image
from featviz.resample import resize
from featviz.types import Tensor


@click.command(cls=options.Command, context_settings=options.CONTEXT)
@click.argument("model")
@click.argument("image")
@click.option("-o", "--output", help="The image to write (.png).")
@click.option("--objective", help="What to enhance; a layer's energy if not given.")
@click.option("--guide", metavar="IMAGE", help="Dream of what is in this picture.")
@click.option("--mask", metavar="IMAGE", help="Dream where this image is white.")
@options.of(DreamSettings)
@click.option("--size", type=int, help="Resize the image to this longer side first.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--video", "film", metavar="FILE", help="Go on into a video: .mp4, .gif or .webp.")
@click.option("--frames", type=int, default=120, show_default=True, help="Frames of the video.")
@click.option("--fps", type=float, default=24, show_default=True, help="Frames a second.")
@click.option("--zoom", type=float, default=1.02, show_default=True, help="Zoom of a frame.")
@click.option("--rotate", type=float, default=0, show_default=True, help="Degrees a frame turns.")
@options.batch_size
@options.device
@options.as_json
def dream(**given: Any) -> int:
    r"""Enhance in IMAGE what MODEL sees in it.

    \b
    featviz dream efficientnet_lite0 photo.jpg -o dream.png
    featviz dream efficientnet_lite0 photo.jpg -o dream.png --objective layer:_blocks.8 --tile 512
    featviz dream efficientnet_lite0 photo.jpg --video dream.mp4 --frames 240 --rotate 0.3

    A video has 2 octaves and 4 steps by default, since its frames build on one another. They are
    kept beside it, in FILE.frames: the same command continues there.
    """
    if not given["output"] and not given["film"]:
        raise fv.FeatvizError("give -o OUT.png, --video OUT.mp4, or both")
    output = images.check_output(given["output"]) if given["output"] else None
    film = video.check_output(given["film"]) if given["film"] else None
    model = fv.load(given["model"])
    picture = _resized(read_image(given["image"], model.channels, "image"), given["size"])
    chosen = options.given(given, DreamSettings)
    chosen |= {name: given[name] for name in ("guide", "mask") if given[name] is not None}
    chosen |= {name: given[name] for name in ("device", "seed", "batch_size")}
    begun = time.perf_counter()
    files: list[str] = []
    document: dict[str, Any] = {}
    interrupted = False
    if output is not None:
        result = fv.dream(
            model, picture, given["objective"], progress=sys.stderr.isatty(), **chosen
        )
        files += [str(path) for path in result.save(output)]
        document, interrupted = result.record, result.interrupted
    if film is not None and not interrupted:
        frames = fv.dream_video(
            model,
            picture,
            given["objective"],
            frames=given["frames"],
            zoom=given["zoom"],
            rotate=given["rotate"],
            folder=Path(f"{film}.frames"),
            progress=sys.stderr.isatty(),
            **chosen,
        )
        files.append(str(video.write(film, frames, given["fps"])))
        document |= {"frames": given["frames"], "fps": given["fps"]}
    seconds = time.perf_counter() - begun
    if given["as_json"]:
        document |= {"files": files, "seconds": round(seconds, 3), "interrupted": interrupted}
        click.echo(json.dumps(document, indent=1))
    else:
        click.echo(f"{', '.join(files)}  ({seconds:.1f} s)")
    return 130 if interrupted else 0


def _resized(picture: Tensor, longer: int | None) -> Tensor:
    if longer is None:
        return picture
    if longer < 1:
        raise fv.FeatvizError(f"size must be positive, not {longer}")
    factor = longer / max(picture.shape[2:])
    height, width = (max(1, round(side * factor)) for side in picture.shape[2:])
    return resize(picture, (height, width), antialias=True).clamp(0, 1)
