"""A dream that goes on: every frame is the one before, a little nearer, dreamed again."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from featviz._version import __version__
from featviz.dreaming.api import dream
from featviz.dreaming.defaults import dream_objective
from featviz.errors import FeatvizError
from featviz.io import images, sheets
from featviz.io.inputs import ImageLike, read_image
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.transforms.geometric import Rotate, Scale, warp
from featviz.types import Tensor
from featviz.validation import positive_int


def dream_video(
    model: Model,
    image: ImageLike,
    objective: Objective | str | None = None,
    *,
    frames: int,
    zoom: float = 1.02,
    rotate: float = 0.0,
    octaves: int = 2,
    steps: int = 4,
    seed: int = 0,
    folder: str | Path | None = None,
    **options: Any,
) -> Iterator[Tensor]:
    """Yield ``frames`` frames (C, H, W) of a dream, each as soon as it is there.

    Frame 0 is the dream of ``image``; each other one is the frame before, enlarged by ``zoom``
    and turned by ``rotate`` degrees about the centre in one warp, and dreamed again. Frames are
    rounded to 8 bits before they are carried on. [Mordvintsev2015]_

    Parameters
    ----------
    model, image, objective
        As in :func:`featviz.dream`; one picture.
    frames, zoom, rotate
        How many, and what happens from one to the next; a zoom below 1 goes away from the image,
        and what comes in is its reflection.
    octaves, steps
        As in :func:`featviz.dream`; a video needs fewer, since frames build on one another.
    seed
        Frame k has ``seed + k``.
    folder
        Where each frame is kept as a PNG with its number. Frames that are there already are taken
        from there, so that the same call goes on where an earlier one ended, to the same pixels.
    **options
        Whatever else :func:`featviz.dream` takes.

    Raises
    ------
    FeatvizError
        For input that cannot work, before the first frame; also if ``folder`` holds frames of
        another video.
    KeyboardInterrupt
        For Ctrl-C; the frames so far are in ``folder``.
    """
    if not isinstance(model, Model):
        raise FeatvizError("dream_video takes a featviz.Model: wrap the network, fv.Model(net, …)")
    frames = positive_int("frames", frames)
    if not 0 < zoom < math.inf:
        raise FeatvizError(f"zoom must be positive, not {zoom}")
    if not math.isfinite(rotate):
        raise FeatvizError(f"rotate must be a number of degrees, not {rotate}")
    picture = read_image(image, model.channels, "image")
    if len(picture) != 1:
        raise FeatvizError(f"a video starts at one image, not {len(picture)}")
    if folder is not None:
        folder = Path(folder)
        if not folder.parent.is_dir():
            raise FeatvizError(f"cannot write {str(folder)!r}: there is no such folder above it")
        folder.mkdir(exist_ok=True)
    goal = dream_objective(model, objective, options.pop("guide", None))
    given = {"octaves": octaves, "steps": steps, **options}
    plain = (bool, int, float, str, type(None))
    recipe = {
        "goal": str(goal),
        "model": model.name,
        "image": zlib.crc32(sheets.to_pil(picture[0]).tobytes()),
        "zoom": zoom,
        "rotate": rotate,
        "seed": seed,
        **{name: value for name, value in sorted(given.items()) if isinstance(value, plain)},
    }
    return _frames(model, picture, goal, frames, folder, recipe, given)


def _frames(
    model: Model,
    picture: Tensor,
    goal: Objective,
    frames: int,
    folder: Path | None,
    recipe: dict[str, Any],
    given: dict[str, Any],
) -> Iterator[Tensor]:
    size = (picture.shape[2], picture.shape[3])
    move = _camera(recipe["zoom"], recipe["rotate"], size)
    for k in range(frames):
        path = None if folder is None else folder / f"frame-{k:06d}.png"
        if path is not None and path.exists():
            picture = _kept(path, k, recipe, model.channels)
        else:
            start = move(picture) if k else picture
            made = dream(model, start, goal, seed=recipe["seed"] + k, **given)
            if made.interrupted:
                raise KeyboardInterrupt
            picture = made.images.mul_(255).round_().clamp_(0, 255).div_(255)
            if path is not None:
                record = {
                    "version": __version__,
                    "verb": "dream_video",
                    "video": recipe,
                    "frame": k,
                }
                images.save(sheets.to_pil(picture[0]), path, record)
        yield picture[0]


def _camera(zoom: float, degrees: float, size: tuple[int, int]) -> Any:
    """Return the map from a frame (1, C, *size) to where the next one starts."""
    tapes = torch.full((1, 1, 1), zoom), torch.full((1, 1, 1), math.radians(degrees))
    apply = warp(list(zip((Scale(), Rotate()), tapes, strict=True)), size, torch.device("cpu"))
    return lambda picture: apply(picture, 0).clamp_(0, 1)


def _kept(path: Path, number: int, recipe: dict[str, Any], channels: int) -> Tensor:
    found = images.read_settings(path)
    if found.get("video") != recipe or found.get("frame") != number:
        raise FeatvizError(
            f"{str(path)!r} is a frame of another video: remove {str(path.parent)!r}, or give "
            "another place"
        )
    return images.read(path, channels)
