"""Networks in a file: programs of ``torch.export``, with what they expect of their images.

The file is read without running any code of its own: whatever in it is pickled has to be plain
tensors and containers.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from featviz.errors import ModelError
from featviz.images import write_bytes
from featviz.model import Model

DESCRIPTION = "a program of torch.export; featviz.zoo.export writes one with its preprocessing"
SUFFIX = ".pt2"
#: The file in the archive that says what the network expects of its images.
CARD = "featviz.json"
_FIELDS = ("mean", "std", "range", "size", "channels", "classes", "logits")
_STATIC = "export it with dynamic_shapes=({0: torch.export.Dim('batch')},)"


def export(model: Model, path: str | Path) -> Path:
    """Write a network with its weights and preprocessing to a file that :func:`load` takes.

    Batches of any length, images of the model's own size. Layers keep their names; what other code
    of the network does (hooks, attributes) is not in it.

    Raises
    ------
    ModelError
        If ``torch.export`` cannot trace the network.
    """
    place = Path(path)
    if place.suffix != SUFFIX:
        raise ModelError(f"an exported network ends in {SUFFIX}, not {place.name!r}")
    images = torch.rand(2, model.channels, *model.size, device=model.device)
    card = {name: getattr(model, name) for name in _FIELDS}
    buffer = io.BytesIO()
    try:
        with model.session(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, on what it is about to change
            program = torch.export.export(
                model.net, (model.normalize(images),), dynamic_shapes=({0: Dim("batch")},)
            )
            torch.export.save(program, buffer, extra_files={CARD: json.dumps(card)})
    except Exception as error:  # whatever the network's own code raises when it is traced
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"torch.export cannot trace the network: {reason}") from error
    return write_bytes(place, buffer.getvalue())


def load(name: str) -> Model:
    """Return the network in the file ``name``.

    What :func:`export` says of its images is used; of other files the size and channels are those
    of the program's input, and its images are in [0, 1] as they are.

    Raises
    ------
    ModelError
        If the file is not there, is no exported program of one batch of images, would run code
        when it is read, or takes batches of one length only.
    """
    path = Path(name)
    if not path.is_file():
        raise ModelError(f"no file {name!r}")
    extra = {CARD: ""}
    _check(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(os.fspath(path), extra_files=extra)
            net = torch.export.unflatten(program)
    except Exception as error:  # torch.export has no error of its own
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{name!r} is no program of torch.export: {reason}") from error
    shape = _input(program, name, sized=bool(extra[CARD]))
    if extra[CARD]:
        try:
            card = json.loads(extra[CARD])
            return Model(net, **{key: card[key] for key in _FIELDS if card.get(key) is not None})
        except (ValueError, TypeError) as error:
            raise ModelError(f"{name!r}: its {CARD} is damaged: {error}") from error
    return Model(net, channels=shape[1], size=tuple(shape[2:]))


def _input(program: ExportedProgram, name: str, *, sized: bool) -> tuple[int, ...]:
    """Return the shape of the images that a program takes; 0 stands for any length of the batch."""
    wanted = program.graph_signature.user_inputs
    nodes = [node for node in program.graph.nodes if node.name in wanted]
    values = [node.meta.get("val") for node in nodes]
    shapes = [tuple(v.shape) for v in values if isinstance(v, torch.Tensor)]
    if len(shapes) != 1 or len(values) != 1 or len(shapes[0]) < 3:
        raise ModelError(f"{name!r} does not take one batch of images (B, C, *size)")
    batch, *rest = shapes[0]
    if isinstance(batch, int):
        raise ModelError(f"{name!r} takes batches of {batch} only: {_STATIC}")
    if not sized and not all(isinstance(side, int) for side in rest):
        raise ModelError(
            f"{name!r} does not say which of the sizes that it takes is its own: write it with "
            "featviz.zoo.export"
        )
    return (0, *rest)


def _check(path: Path) -> None:
    """Raise :class:`ModelError` unless reading the archive runs no code.

    ``torch.export.load`` reads pickles without restrictions where it has to.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError) as error:
        raise ModelError(f"{str(path)!r} is no program of torch.export: {error}") from error
    plain = {p for name, data in contents.items() for p in _raw(name, data)}
    for name, data in contents.items():
        if name in plain or not data.startswith((b"PK\x03\x04", b"\x80")):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the pickle's protocol
                torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise ModelError(
                f"{str(path)!r} holds {name!r}, which would run code when it is read: export "
                "a network of plain tensors"
            ) from error


def _raw(name: str, data: bytes) -> set[str]:
    """Return the members that a list of weights says are plain numbers."""
    if not name.endswith("_config.json"):
        return set()
    folder = name.rpartition("/")[0]
    entries: dict[str, Any] = json.loads(data).get("config", {})
    return {f"{folder}/{e['path_name']}" for e in entries.values() if not e.get("use_pickle", True)}
