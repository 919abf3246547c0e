"""What photographs do to a network: a prior on activations that was measured on them."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import torch

from featviz.errors import FeatvizError, UnitError
from featviz.objectives import arrays
from featviz.objectives.activation_stats import ActivationStats, LayerStats, moments
from featviz.objectives.base import Objective
from featviz.objectives.batchnorm import smallest
from featviz.objectives.scene import Scene, Score, Target
from featviz.objectives.unit import Unit, quoted, real, word
from featviz.types import Tensor


@functools.lru_cache(maxsize=4)
def _load(source: str, modified: float) -> ActivationStats:
    if source.startswith("array:"):  # named by its content
        return ActivationStats.from_bytes(arrays.load(source).astype(np.uint8).tobytes(), source)
    return ActivationStats.load(source)


def _read(source: str) -> ActivationStats:
    """Return statistics, loading a changed file again."""
    try:
        modified = 0.0 if source.startswith("array:") else Path(source).stat().st_mtime
    except (OSError, ValueError):
        modified = 0.0  # reading it says why
    return _load(source, modified)


@dataclasses.dataclass(frozen=True, repr=False)
class ActivationPrior(Unit):
    """See :func:`activation_prior`."""

    kind = "activation_prior"
    scalable = True
    stats: str = quoted()
    layer: str = word("")
    share: float = real(1.0)

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer or "output",)

    def _measured(self, target: Target) -> dict[str, LayerStats]:
        """Return the statistics of the layers that are read."""
        try:
            stats = _read(self.stats).layers
        except FeatvizError as error:
            raise UnitError(str(error)) from error
        last = target.layer(self.layer).name if self.layer else ""
        infos = []
        for info in target.model.layers(target.size):
            if info.name in stats:
                measured = len(stats[info.name].mean) // 2
                if measured != info.units or not info.positions:
                    raise UnitError(
                        f"the statistics are those of another network: layer {info.name!r} had "
                        f"{measured} units with positions, and has shape {info.shape}"
                    )
                infos.append(info)
            if info.name == last:
                break
        missing = set(stats) - {info.name for info in target.model.layers(target.size)}
        if missing:
            raise UnitError(
                f"the statistics are those of another network: it has no layer {min(missing)!r}"
            )
        if not infos:
            raise UnitError(f"activation_prior: no layer up to {self.layer!r} was measured")
        return {info.name: stats[info.name] for info in smallest(infos, self.share)}

    def needs(self, target: Target) -> tuple[str, ...]:
        return tuple(self._measured(target))

    def bind(self, target: Target) -> Score:
        if not 0 < self.share <= 1:
            raise UnitError(f"activation_prior: share must be above 0, at most 1: {self.share:g}")
        measured = {name: s.to(target.device) for name, s in self._measured(target).items()}
        axes = {name: target.layer(name).axis for name in measured}

        def score(scene: Scene) -> Tensor:
            prices = []
            for name, stats in measured.items():
                distance = stats.distance(moments(scene[name], axes[name]))
                prices.append((distance / stats.tolerance - 1).relu())
            return -torch.stack(prices).mean(0)

        return score


def activation_prior(
    stats: ActivationStats | str | Path, *, layer: str = "", share: float = 1
) -> Objective:
    """Return how far the activations are from those of any single photograph; 0 is within.

    ``stats`` is what ``featviz.calibrate(photographs, model=…)`` measured, or its file. For each
    layer (up to ``layer``, where the forward pass then ends) the squared Mahalanobis distance of
    the channels' means and standard deviations over positions, divided by the distance that 95 % of
    photographs are within; what exceeds 1, averaged over the layers, and negated.
    :func:`featviz.batchnorm_match` holds one image to the statistics of all.

    ``share`` (above 0, at most 1) reads only the layers with the fewest values, up to that share of
    the values of all layers measured.

    They are those of the size and the weights that were measured; images at half the size
    (``coarse``) are held to them as well. An objective with this term has none of the presets'
    prior: ``o + 10*activation_prior:"STATS":share=0.1 - 30*multiscale_variation:scales=2`` keeps
    its price on roughness.

    Raises
    ------
    UnitError
        If ``stats`` are neither; where it is used, if the network has other layers or units.
    """
    if isinstance(stats, ActivationStats):
        content = np.frombuffer(stats.to_bytes(), np.uint8)
        return ActivationPrior(arrays.register_name(content, "stats"), layer, float(share))
    if not isinstance(stats, (str, Path)):
        raise UnitError(
            f"activation_prior takes what calibrate(photographs, model=…) returned, or its file, "
            f"not {type(stats).__name__}"
        )
    return ActivationPrior(arrays.recall(str(stats)), str(layer), float(share))
