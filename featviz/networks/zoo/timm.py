"""Networks of timm."""

from __future__ import annotations

from typing import Any

from featviz.errors import ModelError, did_you_mean
from featviz.networks.model import Model
from featviz.networks.zoo._need import build, need, problem
from featviz.networks.zoo._weights import hub, random_weights
from featviz.networks.zoo.records import declared

DESCRIPTION = "timm's image classifiers"
INSTALL = "pip install timm"


def unavailable() -> str:
    """Return why networks of timm cannot be loaded here; empty if they can."""
    return problem("timm", INSTALL)


def load(name: str, weights: str | None, options: dict[str, Any]) -> Model:
    """Return timm's network ``name`` (``resnet50``, ``vit_small_patch16_224.augreg_in1k``, …).

    ``weights`` is ``default``, the tag of others (``a1_in1k``), or None.
    """
    library = need("timm", INSTALL, f"model 'timm:{name}'")
    if not library.is_model(name):
        raise ModelError(f"timm has no model {name!r}{did_you_mean(name, library.list_models())}")
    if weights is None:
        with random_weights():
            net = build(
                lambda: library.create_model(name, pretrained=False, **options), f"timm:{name}"
            )
    else:
        tagged = name if weights == "default" else f"{name.partition('.')[0]}.{weights}"
        with hub():
            net = build(
                lambda: library.create_model(tagged, pretrained=True, **options), f"timm:{tagged}"
            )
    return Model(net.eval(), **declared(net))
