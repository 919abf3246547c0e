"""Facets of a unit that responds to several things, and photographs accentuated for a unit."""

from __future__ import annotations

import dataclasses

import torch

from featviz.errors import FeatvizError
from featviz.io.inputs import ImageLike
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.objectives import Objective, arrays, feature_match
from featviz.objectives import objective as as_objective
from featviz.objectives.directions import Vector
from featviz.objectives.scene import Scene, Score, Target
from featviz.optim.result import Result
from featviz.optim.settings import Settings, SettingsKeywords
from featviz.options import takes
from featviz.param import Fourier
from featviz.param import parse as parse_param
from featviz.recipes.contributions import single
from featviz.rendering.api import render
from featviz.types import Seed, Tensor, Unpack
from featviz.validation import real


@dataclasses.dataclass(frozen=True, repr=False)
class Faceted(Objective):
    """See :func:`faceted`."""

    objective: Objective
    layer: str
    probe: str
    weight: float

    @property
    def parts(self) -> tuple[Objective, ...]:  # type: ignore[override]
        return (self.objective,)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(sorted({self.layer, *self.objective.layers}))

    def needs(self, target: Target) -> tuple[str, ...]:
        return tuple(sorted({self.layer, *self.objective.needs(target)}))

    def bind(self, target: Target) -> Score:
        score, info = self.objective.bind(target), target.layer(self.layer)
        probe = torch.as_tensor(arrays.load(self.probe), dtype=torch.float32)
        if tuple(probe.shape) not in ((info.units,), (info.units, *info.positions)):
            raise FeatvizError(
                f"the probe has shape {tuple(probe.shape)}, but layer {self.layer!r} "
                f"{info.units} units"
            )
        probe = (probe / probe.norm().clamp_min(1e-12)).to(target.device)
        probe = probe.reshape(*probe.shape, *(1 for _ in info.positions[probe.ndim - 1 :]))

        def value(scene: Scene) -> Tensor:
            whole = score(scene)
            if not whole.requires_grad:  # the gradient, and with it the facet, is unknown
                return whole
            units = scene[self.layer]
            (slopes,) = torch.autograd.grad(
                whole.sum(), units, retain_graph=True, allow_unused=True
            )
            if slopes is None:
                raise FeatvizError(
                    f"{self.objective} does not depend on layer {self.layer!r}: name an earlier one"
                )
            part = (units * slopes.detach()).movedim(info.axis, 1) * probe
            return whole + self.weight * part.flatten(1).sum(1)

        return value

    def sliced(self, here: slice) -> Objective:
        return dataclasses.replace(self, objective=self.objective.sliced(here))

    def __str__(self) -> str:
        return f"faceted({self.objective}, {self.layer}, {self.probe}, {self.weight:g})"


def faceted(
    objective: Objective | str, layer: str, probe: Vector, *, weight: float = 10.0
) -> Objective:
    """Return an objective that prefers one facet of what a unit responds to.

    f + weight · wᵀ(g ⊙ ∂f/∂g), where g is the activation of an earlier ``layer``, w the ``probe``
    of the facet, of norm 1, and the gradient is taken as given: of all that contributes to the
    unit, what also points along the probe counts more. A probe comes from
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
    goal = as_objective(objective)
    if goal.relational:
        raise FeatvizError(f"faceted takes an objective of single samples, not {goal}")
    return Faceted(
        goal,
        str(layer),
        arrays.register_name(probe, "a probe"),
        real("weight", weight, 0, 1e9),
    )


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
    progress: bool = False,
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
