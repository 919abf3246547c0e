"""One facet of a unit emphasized, and photographs in which what it responds to is."""

from __future__ import annotations

import dataclasses

from featviz.io.inputs import ImageLike
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.objectives import Objective, direction, feature_match
from featviz.objectives import objective as as_objective
from featviz.objectives.directions import Vector
from featviz.objectives.facets import WEIGHT, facet_of
from featviz.optim.result import Result
from featviz.optim.settings import Settings
from featviz.optim.settings_keywords import SettingsKeywords
from featviz.options import takes
from featviz.param import Fourier
from featviz.param import parse as parse_param
from featviz.recipes.contributions import single
from featviz.rendering.api import render
from featviz.types import Seed, Unpack
from featviz.validation import real


def faceted(
    objective: Objective | str, layer: str, probe: Vector, *, weight: float = WEIGHT
) -> Objective:
    """Return an objective that prefers one facet of what a unit responds to.

    f + weight · wᵀ(g ⊙ ∂f/∂g), where g is the activation of an earlier ``layer``, w the ``probe``
    of the facet, of norm 1, and the gradient is taken as given: of all that contributes to the
    unit, what also points along the probe counts more; in the language,
    ``faceted(class:285, direction:LAYER:probe.npy, 10)``. A probe comes from
    ``featviz.attribution.concept_vectors.concept_vector(model, layer, examples, others)``.
    [Goh2021]_. Without gradients, as for the scores of a result, its value is that of f.

    Parameters
    ----------
    objective
        The unit, f.
    layer
        A layer before it.
    probe
        (units,) or (units, *positions) of the layer, or the name of a file.
    weight
        How much the facet counts.

    Raises
    ------
    FeatvizError
        If the probe is no array or, when used, does not fit the layer.
    """
    return facet_of(as_objective(objective), direction(layer, probe), weight)


@takes(Settings)
def accentuate(
    model: Model | str,
    image: ImageLike,
    objective: Objective | str,
    layer: str,
    *,
    strength: float = 1.0,
    settings: Settings | None = None,
    seed: Seed = 0,
    device: str | None = None,
    progress: bool | None = None,
    **options: Unpack[SettingsKeywords],
) -> Result:
    """Return a photograph in which what a unit responds to is exaggerated, and little else.

    The ascent starts at the photograph and maximizes the objective while the activations of
    ``layer`` stay near the photograph's: o - strength · ‖g - g₀‖² / ‖g₀‖². [Hamblin2024]_.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`, or the name of a network.
    image
        One photograph.
    objective
        What to exaggerate: a class logit or a unit.
    layer
        An early layer, which keeps the photograph what it is.
    strength
        How much it counts; 0 lets the photograph go.
    settings
        How the image is optimized; keyword arguments override its fields. The default
        parameterization is Fourier, from the photograph.
    seed, device, progress
        As in :func:`featviz.render`.

    Raises
    ------
    FeatvizError
        If there is not exactly one image, or the parameterization cannot start from it.
    """
    model = as_model(model, "accentuate")
    photo = single(image, model, "image")
    given = Settings.of(settings, options)
    param = parse_param(given.param) if isinstance(given.param, str) else given.param or Fourier()
    start = param.from_image(photo)
    goal = as_objective(objective)
    strength = real("strength", strength, 0, 1e9)
    if strength:
        goal = goal + strength * feature_match(layer, photo[0])
    return render(
        model,
        goal,
        settings=dataclasses.replace(given, param=start),
        seed=seed,
        device=device,
        progress=progress,
    )
