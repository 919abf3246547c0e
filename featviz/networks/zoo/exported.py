"""Networks in a file: ``torch.export`` programs with their preprocessing.

Pickles in a file must hold plain tensors and containers only. A program is code nevertheless, like
a module that is imported: load files that you trust.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from featviz.errors import ModelError
from featviz.io.files import write_bytes
from featviz.networks.model import Model
from featviz.process_state import shielded

DESCRIPTION = "a program of torch.export; featviz.zoo.export writes one with its preprocessing"
SUFFIX = ".pt2"
#: The file in the archive that holds the preprocessing.
CARD = "featviz.json"
_FIELDS = ("mean", "std", "range", "size", "channels", "classes", "logits", "axes", "order", "crop")
#: The program in the archives of older torch versions.
_OLD_PROGRAM = "serialized_exported_program.json"
#: Prefixes of the names of pickled objects, and the names of members that are text.
_OBJECT_PREFIXES = ("custom_obj", "opaque_obj")
_TEXT_MEMBERS = ("archive_format", "archive_version", "byteorder", "version", _OLD_PROGRAM)
_DYNAMIC_HINT = "export it with dynamic_shapes=({0: torch.export.Dim('batch')},)"


@shielded
def export(model: Model, path: str | Path) -> Path:
    """Write a network with its weights and preprocessing to a file for :func:`load`.

    It accepts batches of any length and images of the model's own size. Layers keep their names;
    other code of the network (hooks, attributes) is not included.

    Raises
    ------
    ModelError
        If ``torch.export`` cannot trace the network.
    """
    target = Path(path)
    if target.suffix != SUFFIX:
        raise ModelError(f"the file of an exported network ends in {SUFFIX}, not {target.name!r}")
    if model.call is not None:
        raise ModelError(
            "a network with call= cannot be exported: give fv.Model an nn.Module whose forward "
            "makes that call"
        )
    # Not random: the global generator is the user's.
    images = torch.full((2, model.channels, *model.size), 0.5, device=model.device)
    card = {name: getattr(model, name) for name in _FIELDS}
    buffer = io.BytesIO()
    try:
        with model.session(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own deprecations
            program = torch.export.export(
                model.net, (model.normalize(images),), dynamic_shapes=({0: Dim("batch")},)
            )
            torch.export.save(program, buffer, extra_files={CARD: json.dumps(card)})
    except Exception as error:  # tracing runs the network's own code
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"torch.export cannot trace the network: {reason}") from error
    return write_bytes(target, buffer.getvalue())


def load(name: str) -> Model:
    """Return the network in the file ``name``.

    The preprocessing is what :func:`export` recorded; for other files, size and channels are those
    of the program's input, which then gets images in [0, 1] as they are.

    A program is code: load files that you trust.

    Raises
    ------
    ModelError
        If the file is missing, is no exported program of one batch of images, holds pickles of more
        than tensors, or accepts batches of one length only.
    """
    path = Path(name)
    if not path.is_file():
        raise ModelError(f"no file {name!r}")
    extra = {CARD: ""}
    _check(path)
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            program = torch.export.load(os.fspath(path), extra_files=extra)
            net = torch.export.unflatten(program)
    except Exception as error:  # torch.export has no error class of its own
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{name!r} is no program of torch.export: {reason}") from error
    shape = _input_shape(program, name, sized=bool(extra[CARD]))
    if extra[CARD]:
        try:
            card = json.loads(extra[CARD])
            return Model(net, **{key: card[key] for key in _FIELDS if card.get(key) is not None})
        except (ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"{name!r}: its {CARD} is damaged: {error}") from error
    return Model(net, channels=shape[1], size=tuple(shape[2:]))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the logger of torch.export, whose messages the error repeats."""
    logger = logging.getLogger("torch.export")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _input_shape(program: ExportedProgram, name: str, *, sized: bool) -> tuple[int, ...]:
    """Return the shape of a program's images; 0 stands for a batch of any length."""
    input_names = program.graph_signature.user_inputs
    nodes = [node for node in program.graph.nodes if node.name in input_names]
    values = [node.meta.get("val") for node in nodes]
    shapes = [tuple(v.shape) for v in values if isinstance(v, torch.Tensor)]
    if len(shapes) != 1 or len(values) != 1 or len(shapes[0]) < 3:
        raise ModelError(f"{name!r} does not take one batch of images (B, C, *size)")
    batch, *axes = shapes[0]
    if isinstance(batch, int):
        raise ModelError(f"{name!r} takes batches of {batch} only: {_DYNAMIC_HINT}")
    if not sized and not all(isinstance(side, int) for side in axes):
        raise ModelError(
            f"{name!r} accepts images of several sizes and does not say which is its own: write it "
            "with featviz.networks.zoo.export"
        )
    return (0, *axes)


def _check(path: Path) -> None:
    """Raise :class:`ModelError` unless all pickles in the archive hold plain tensors.

    ``torch.export.load`` may read pickles without restrictions.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            contents = {name: archive.read(name) for name in names}
        raw = _raw_members(contents)
    except (zipfile.BadZipFile, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ModelError(f"{str(path)!r} is no program of torch.export: {error}") from error
    if len(contents) < len(names):  # torch may read the other one
        raise ModelError(f"{str(path)!r} is no program of torch.export: members of the same name")
    if not any(name.endswith(("archive_format", _OLD_PROGRAM)) for name in names):
        raise ModelError(f"{str(path)!r} is no program of torch.export")
    for name, data in contents.items():
        if name in raw or _is_text(name):
            continue
        try:
            if name.rpartition("/")[2].startswith(_OBJECT_PREFIXES):
                raise pickle.UnpicklingError("an object of a custom class")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the pickle protocol
                torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        except Exception as error:  # a pickle can fail in any way
            raise ModelError(
                f"{str(path)!r} holds {name!r}, which is more than tensors and may run code "
                "when it is read: export a network of plain tensors"
            ) from error


def _is_text(name: str) -> bool:
    """Return whether a member is read as text, judging by its place in the archive."""
    parts = name.split("/")
    return parts[-1] in _TEXT_MEMBERS or (len(parts) > 2 and parts[1] in ("extra", ".data"))


def _raw_members(contents: dict[str, bytes]) -> set[str]:
    """Return the members that hold raw numbers, and the configurations that list them."""
    plain: set[str] = set()
    pickled: set[str] = set()
    for name, data in contents.items():
        folder, _, file = name.rpartition("/")
        if file.endswith("_config.json") or (file == "model.json" and folder.endswith("models")):
            plain.add(name)
            for entry in json.loads(data).get("config", {}).values():
                group = plain if entry.get("use_pickle") is False else pickled
                group.add(f"{folder}/{entry['path_name']}")
    return plain - pickled
