"""``featviz dream``."""

from __future__ import annotations

import json
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
from featviz.validation import fits_memory


@click.command(cls=options.Command, context_settings=options.CONTEXT)
@click.argument("model")
@click.argument("image")
@click.option("-o", "--output", help="Image to write (.png). Default: dream.png, without --video.")
@click.option("--objective", help="Objective to maximize. Default: a layer's energy.")
@click.option("--guide", metavar="IMAGE", help="Guide image, whose features are enhanced.")
@click.option("--mask", metavar="IMAGE", help="Dream where this image is white.")
@options.of(DreamSettings)
@click.option("--size", type=options.COUNT, help="Resize the image to this longer side first.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--video", "video", metavar="FILE", help="Zoom video to write: .mp4, .gif or .webp.")
@click.option(
    "--frames",
    type=options.COUNT,
    default=120,
    show_default=True,
    help="Number of frames of the video.",
)
@click.option("--fps", type=float, default=24, show_default=True, help="Frames per second.")
@click.option("--zoom", type=float, default=1.02, show_default=True, help="Zoom factor per frame.")
@click.option(
    "--rotate", type=float, default=0, show_default=True, help="Rotation per frame in degrees."
)
@options.batch_size
@options.device
@options.quiet
@options.as_json
def dream(**values: Any) -> int:
    r"""Enhance what MODEL sees in IMAGE.

    \b
    featviz dream efficientnet_lite0 photo.jpg -o dream.png
    featviz dream efficientnet_lite0 photo.jpg --objective layer:_blocks.8
    featviz dream efficientnet_lite0 photo.jpg --video dream.mp4 --frames 240

    A video uses 2 octaves and 4 steps by default, since its frames build on each other. They are
    stored in FILE.frames, from where the same command resumes.
    """
    if values["output"] is None and values["video"] is None:
        values["output"] = options.default_output("dream")
    output = images.check_output(values["output"]) if values["output"] is not None else None
    video_path = video.check_output(values["video"]) if values["video"] is not None else None
    model = fv.load(values["model"])
    image = _resized(read_image(values["image"], model.channels, "image"), values["size"])
    settings = options.given(values, DreamSettings)
    settings |= {name: values[name] for name in ("guide", "mask") if values[name] is not None}
    settings |= {name: values[name] for name in ("device", "seed", "batch_size")}
    started = time.perf_counter()
    files: list[str] = []
    document: dict[str, Any] = {}
    interrupted = False
    if output is not None:
        result = fv.dream(
            model, image, values["objective"], progress=options.progress(), **settings
        )
        files += [str(path) for path in result.save(output)]
        document, interrupted = result.record, result.interrupted
    if video_path is not None and not interrupted:
        frames = fv.dream_video(
            model,
            image,
            values["objective"],
            frames=values["frames"],
            zoom=values["zoom"],
            rotate=values["rotate"],
            folder=Path(f"{video_path}.frames"),
            progress=options.progress(),
            **settings,
        )
        files.append(str(video.write(video_path, frames, values["fps"])))
        document |= {"frames": values["frames"], "fps": values["fps"]}
    seconds = time.perf_counter() - started
    if values["as_json"]:
        document |= {"files": files, "seconds": round(seconds, 3), "interrupted": interrupted}
        click.echo(json.dumps(document, indent=1))
    else:
        options.echo(f"{', '.join(files)}  ({seconds:.1f} s)")
    return options.status(interrupted, files)


def _resized(image: Tensor, longer: int | None) -> Tensor:
    if longer is None:
        return image
    factor = longer / max(image.shape[2:])
    height, width = (max(1, round(side * factor)) for side in image.shape[2:])
    fits_memory("an image", (image.shape[1], height, width))
    return resize(image, (height, width), antialias=True).clamp(0, 1)
