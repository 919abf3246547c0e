"""Classifiers of torchvision with their default weights."""

from __future__ import annotations

from featviz.errors import ModelError, did_you_mean
from featviz.networks.model import Model
from featviz.networks.zoo import imagenet
from featviz.networks.zoo._need import download, have, need

DESCRIPTION = "torchvision's classifiers, with their default weights"
INSTALL = "pip install torchvision"


def installed() -> bool:
    """Return whether torchvision is installed."""
    return have("torchvision")


def load(name: str) -> Model:
    """Return the network ``name`` of ``torchvision.models`` with its best weights."""
    models = need("torchvision.models", INSTALL, f"model 'torchvision:{name}'")
    if name not in models.list_models():
        raise ModelError(
            f"torchvision has no model {name!r}{did_you_mean(name, models.list_models())}"
        )
    weights = models.get_model_weights(name).DEFAULT
    preprocessing = weights.transforms()
    net = download(lambda: models.get_model(name, weights=weights), f"torchvision:{name}")
    return Model(
        net.eval(),
        mean=getattr(preprocessing, "mean", imagenet.MEAN),
        std=getattr(preprocessing, "std", imagenet.STD),
        size=_side(getattr(preprocessing, "crop_size", 224)),
        classes=weights.meta.get("categories"),
    )


def _side(crop: int | list[int]) -> int:
    return crop if isinstance(crop, int) else int(crop[0])
