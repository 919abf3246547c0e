"""Networks in ONNX files, converted to modules by onnx2torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from featviz.errors import ModelError
from featviz.networks.model import Model
from featviz.networks.zoo._need import need, problem

DESCRIPTION = "an ONNX file, through onnx2torch; mean=, std=, size= as for featviz.Model"
INSTALL = 'pip install "featviz[onnx]"'
SUFFIX = ".onnx"


def unavailable() -> str:
    """Return why ONNX files cannot be read here; empty if they can."""
    return problem("onnx2torch", INSTALL)


def load(name: str, options: dict[str, Any]) -> Model:
    """Return the network in the file ``name``; ``options`` are arguments of :class:`featviz.Model`.

    A file says nothing of preprocessing: without ``mean``, ``std`` and ``range`` the network gets
    images in [0, 1] as they are. Channels and size are those of its input; where it takes any size,
    ``size`` has to be given. Layers are the nodes of the graph, by name.

    Raises
    ------
    ModelError
        If onnx2torch is missing, or the file is no network of one batch of images that it converts.
    """
    path = Path(name)
    if not path.is_file():
        raise ModelError(f"no file {name!r}")
    library = need("onnx2torch", INSTALL, f"model {name!r}")
    onnx = need("onnx", INSTALL, f"model {name!r}")
    try:
        program = onnx.load(os.fspath(path))
        net = library.convert(program)
    except Exception as error:  # neither package has one class of errors
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"cannot read {path.name!r}: {reason}") from error
    weights = {tensor.name for tensor in program.graph.initializer}
    inputs = [entry for entry in program.graph.input if entry.name not in weights]
    if len(inputs) != 1:
        raise ModelError(f"{path.name!r} takes {len(inputs)} inputs instead of a batch of images")
    _, *sides = [axis.dim_value for axis in inputs[0].type.tensor_type.shape.dim]
    if len(sides) < 2:
        raise ModelError(f"{path.name!r} does not take a batch of images (B, C, *size)")
    spec: dict[str, Any] = {"channels": sides[0] or None, "size": tuple(sides[1:])} | options
    if "size" not in options and not all(sides[1:]):
        raise ModelError(f"{path.name!r} takes images of any size: say size=")
    try:
        return Model(net.eval(), **spec)
    except TypeError as error:
        raise ModelError(f"{path.name!r}: {error}") from error
