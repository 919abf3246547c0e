"""DeepDream zoom videos: every frame is the previous one, zoomed in and dreamed again."""

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
from featviz.io.files import make_folder
from featviz.io.inputs import ImageLike, read_image
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.process_state import shielded
from featviz.transforms.geometric import Rotate, Scale, warp
from featviz.types import Tensor
from featviz.validation import positive_int, real


def dream_video(
    model: Model | str,
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
    """Yield ``frames`` frames (C, H, W) of a DeepDream zoom, each as soon as it is finished.

    Frame 0 is the dream of ``image``. Every later frame is the previous one, enlarged by ``zoom``
    and rotated by ``rotate`` degrees about the centre in one warp, and dreamed again. Frames are
    rounded to 8 bits before the next one is computed. [Mordvintsev2015]_

    Parameters
    ----------
    model, image, objective
        As in :func:`featviz.dream`; a single image.
    frames, zoom, rotate
        The number of frames, and the change from one to the next; a zoom below 1 zooms out, with
        reflection padding at the borders.
    octaves, steps
        As in :func:`featviz.dream`; a video needs fewer, since frames build on each other.
    seed
        Frame k uses ``seed + k``.
    folder
        Folder in which each frame is stored as a numbered PNG. Existing frames are loaded, so that
        the same call resumes an interrupted one, with the same pixels.
    **options
        Any other arguments of :func:`featviz.dream`.

    Raises
    ------
    FeatvizError
        For invalid input, before the first frame; also if ``folder`` contains frames of another
        video.
    KeyboardInterrupt
        For Ctrl-C; finished frames are in ``folder``.
    """
    model = as_model(model, "dream_video")
    frames = positive_int("frames", frames)
    zoom = real("zoom", zoom, 0, 1000, above=True)
    rotate = real("rotate", rotate, -360, 360)
    start_image = read_image(image, model.channels, "image")
    if len(start_image) != 1:
        raise FeatvizError(f"a video starts from one image, not {len(start_image)}")
    if folder is not None:
        folder = Path(folder)
        if not folder.parent.is_dir():
            raise FeatvizError(f"cannot write {str(folder)!r}: its parent folder does not exist")
        make_folder(folder)
    goal = dream_objective(model, objective, options.pop("guide", None))
    dream_options = {"octaves": octaves, "steps": steps, **options}
    plain_types = (bool, int, float, str, type(None))
    recipe = {
        "goal": str(goal),
        "model": model.name,
        "image": zlib.crc32(sheets.to_pil(start_image[0]).tobytes()),
        "zoom": zoom,
        "rotate": rotate,
        "seed": seed,
        **{k: v for k, v in sorted(dream_options.items()) if isinstance(v, plain_types)},
    }
    return _frames(model, start_image, goal, frames, folder, recipe, dream_options)


def _frames(
    model: Model,
    frame: Tensor,
    goal: Objective,
    frames: int,
    folder: Path | None,
    recipe: dict[str, Any],
    dream_options: dict[str, Any],
) -> Iterator[Tensor]:
    size = (frame.shape[2], frame.shape[3])
    next_view = _camera(recipe["zoom"], recipe["rotate"], size)
    for k in range(frames):
        path = None if folder is None else folder / f"frame-{k:06d}.png"
        if path is not None and path.exists():
            frame = _read_frame(path, k, recipe, model.channels)
        else:
            start = next_view(frame) if k else frame
            result = dream(model, start, goal, seed=recipe["seed"] + k, **dream_options)
            if result.interrupted:
                raise KeyboardInterrupt
            frame = result.images.mul_(255).round_().clamp_(0, 255).div_(255)
            if path is not None:
                record = {
                    "version": __version__,
                    "verb": "dream_video",
                    "video": recipe,
                    "frame": k,
                }
                images.save(sheets.to_pil(frame[0]), path, record)
        yield frame[0]


@shielded
def _camera(zoom: float, degrees: float, size: tuple[int, int]) -> Any:
    """Return the function that maps a frame (1, C, *size) to the start of the next one."""
    tapes = torch.full((1, 1, 1), zoom), torch.full((1, 1, 1), math.radians(degrees))
    apply = warp(list(zip((Scale(), Rotate()), tapes, strict=True)), size, torch.device("cpu"))
    return shielded(lambda frame: apply(frame, 0).clamp_(0, 1))


def _read_frame(path: Path, number: int, recipe: dict[str, Any], channels: int) -> Tensor:
    stored = images.read_settings(path)
    if stored.get("video") != recipe or stored.get("frame") != number:
        raise FeatvizError(
            f"{str(path)!r} is a frame of another video: remove {str(path.parent)!r}, or use "
            "another folder"
        )
    return images.read(path, channels)
