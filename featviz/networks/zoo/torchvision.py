"""Networks of torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from featviz.errors import ModelError, did_you_mean
from featviz.networks.model import Model
from featviz.networks.zoo._need import build, need, problem
from featviz.networks.zoo._weights import random_weights, reachable
from featviz.networks.zoo.records import of_weights

DESCRIPTION = "torchvision's networks"
INSTALL = "pip install torchvision"


def unavailable() -> str:
    """Return why networks of torchvision cannot be loaded here; empty if they can."""
    return problem("torchvision", INSTALL)


def load(name: str, weights: str | None, options: dict[str, Any]) -> Model:
    """Return the network ``name`` of ``torchvision.models``.

    ``weights`` is ``default``, the name of others (``IMAGENET1K_V1``), or None, with the
    preprocessing of the default ones.
    """
    models = need("torchvision.models", INSTALL, f"model 'torchvision:{name}'")
    if name not in models.list_models():
        raise ModelError(
            f"torchvision has no model {name!r}{did_you_mean(name, models.list_models())}"
        )
    choices = models.get_model_weights(name)
    key = "DEFAULT" if weights in (None, "default") else weights
    entry = getattr(choices, str(key), None)
    if entry is None:
        known = list(getattr(choices, "__members__", {}))
        raise ModelError(f"{name} has no weights {key!r}{did_you_mean(str(key), known)}")
    spec = of_weights(entry)
    if weights is None:
        with random_weights():
            net = build(
                lambda: models.get_model(name, weights=None, **options), f"torchvision:{name}"
            )
        spec |= {"classes": None} if "num_classes" in options else {}
    else:
        _check_reachable(entry, name)
        net = build(lambda: models.get_model(name, weights=entry, **options), f"torchvision:{name}")
    if len(spec["size"]) == 2 and _is_video(entry):
        raise ModelError(f"{name} takes video: fv.Model(net, size=(T, H, W), …)")
    return Model(net.eval(), **spec)


def _is_video(entry: Any) -> bool:
    return "video" in type(entry).__module__


def _check_reachable(entry: Any, name: str) -> None:
    """Raise :class:`ModelError` if weights must be downloaded and their host does not answer."""
    url = getattr(entry, "url", None)
    if not url:
        return
    cached = Path(torch.hub.get_dir()) / "checkpoints" / str(url).rpartition("/")[2]
    if not cached.is_file() and not reachable(url):
        raise ModelError(
            f"cannot load the weights of 'torchvision:{name}': no network; put the file in "
            f"{cached.parent}, or use weights=None or checkpoint="
        )
