"""Pretrained networks of timm."""

from __future__ import annotations

from featviz.errors import ModelError, did_you_mean
from featviz.networks.model import Model
from featviz.networks.zoo import imagenet
from featviz.networks.zoo._need import download, have, need

DESCRIPTION = "pretrained networks of timm"
INSTALL = "pip install timm"


def installed() -> bool:
    """Return whether timm is installed."""
    return have("timm")


def load(name: str) -> Model:
    """Return timm's network ``name`` (``resnet50``, ``vit_small_patch16_224.augreg_in1k``, …)."""
    library = need("timm", INSTALL, f"model 'timm:{name}'")
    if not library.is_model(name):
        raise ModelError(f"timm has no model {name!r}{did_you_mean(name, library.list_models())}")
    net = download(lambda: library.create_model(name, pretrained=True), f"timm:{name}").eval()
    config = library.data.resolve_model_data_config(net)
    channels, *size = config["input_size"]
    return Model(
        net,
        mean=config["mean"],
        std=config["std"],
        size=tuple(size),
        channels=channels,
        classes=imagenet.class_names() if getattr(net, "num_classes", 0) == 1000 else None,
    )
