"""Whether maps change with what is asked, and with what the network answers. [Nie2018]_."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from featviz.attribution.api import attribute
from featviz.attribution.measures.heat_statistics import distance
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.types import Seed, Tensor

Objectives = Objective | str | Sequence[Objective | str]


def class_sensitivity(
    model: Model,
    images: Tensor,
    first: Objectives,
    second: Objectives,
    *,
    others: Tensor | None = None,
    seed: Seed = 0,
    **options: Any,
) -> Tensor:
    """Return the distance (B,) between the maps of two objectives, each map of norm 1.

    ``others`` are the images of the second objective, for example those of an attack that changed
    the class; by default the same. Near 0 a map does not depend on the objective: it shows the
    image. Independent maps with a sign have √2. ``options`` are those of
    :func:`featviz.attribute`.

    Raises
    ------
    FeatvizError
        If images and others differ in shape, or as :func:`featviz.attribute`.
    """
    a = attribute(model, images, first, seed=seed, **options)
    b = attribute(model, images if others is None else others, second, seed=seed, **options)
    return distance(a.pixels, b.pixels)
