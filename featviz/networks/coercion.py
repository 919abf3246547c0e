"""The first argument of every verb: a model, or the name of one."""

from __future__ import annotations

from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.networks.zoo import load


def as_model(model: Model | str, verb: str) -> Model:
    """Return ``model``, loaded by :func:`featviz.load` if it is a name.

    Raises
    ------
    FeatvizError
        If it is neither: a bare module does not say how its images are normalized.
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, str):
        return load(model)
    raise FeatvizError(f"{verb} takes a featviz.Model: wrap the network, fv.Model(net, mean=…)")
