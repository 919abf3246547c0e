"""The activations of an atlas and their places, stored in its folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from featviz.atlases.plan import model_hash
from featviz.errors import FeatvizError
from featviz.io.dataset import Dataset, DatasetItem, ImageDataset, UnreadableError
from featviz.io.files import write_bytes
from featviz.networks.model import Model
from featviz.recipes.gathering import Gathered, gather
from featviz.recipes.plane import planar
from featviz.recipes.stored_tensors import read_stored
from featviz.types import Tensor


def activations_in(
    folder: Path,
    model: Model,
    images: Dataset,
    layer: str,
    per_image: int,
    seed: int,
    progress: bool | None,
) -> Gathered:
    """Return the activations in the folder, or gather and store them."""
    path = folder / "activations.safetensors"
    dataset = ImageDataset(images, model.crop)
    if not dataset.repeatable:
        return gather(model, images, layer, per_image=per_image, seed=seed, progress=progress)
    marks = [_mark(item, model) for item in dataset]
    content = json.dumps([layer, per_image, seed, model_hash(model), model.crop, marks])
    identity = f"vectors {hashlib.blake2b(content.encode(), digest_size=8).hexdigest()}"
    tensors = read_stored(path)
    if tensors is None:
        found = gather(model, images, layer, per_image=per_image, seed=seed, progress=progress)
        data = {
            identity: found.vectors.contiguous(),
            "images": found.images,
            "positions": found.positions,
            "classes": found.classes,
            "names": torch.tensor(list(json.dumps(found.names).encode()), dtype=torch.uint8),
        }
        write_bytes(path, save(data))
        return found
    if identity not in tensors:
        raise FeatvizError(
            f"{str(path)!r} was gathered from other images, another layer or network: name another "
            "folder"
        )
    read = json.loads(bytes(tensors["names"].tolist()).decode())
    return Gathered(
        tensors[identity], tensors["images"], tensors["positions"], tensors["classes"], read
    )


def _mark(item: DatasetItem, model: Model) -> list[Any]:
    """Return what tells an image from others: a file's name, size and time, else its content."""
    if isinstance(item.given, (str, Path)):
        found = Path(item.given).stat()
        return [item.name, found.st_size, found.st_mtime_ns]
    try:
        content = item.image(model.channels, model.size).numpy().tobytes()
    except UnreadableError:
        content = b""
    return [item.name, hashlib.blake2b(content, digest_size=8).hexdigest()]


def places_in(folder: Path, gathered: Gathered, method: Any, seed: int) -> tuple[Tensor, str]:
    """Return the places in the folder, or compute and store them: UMAP takes its time."""
    path = folder / "places.safetensors"
    content = gathered.vectors.contiguous().numpy().tobytes()
    identity = f"{hashlib.blake2b(content, digest_size=8).hexdigest()} {seed}"
    tensors = read_stored(path) or {}
    for used in ["umap", "pca"] if method == "auto" else [method]:
        if f"{used} {identity}" in tensors:
            return tensors[f"{used} {identity}"], used
    places, used = planar(gathered.vectors, method, seed=seed)
    write_bytes(path, save({f"{used} {identity}": places.contiguous()}))
    return places, used
