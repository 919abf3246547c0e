"""The noise in the network during a run: which factors apply at which draw."""

from __future__ import annotations

from collections.abc import Sequence

from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.networks.noise import find_sites
from featviz.optim.tracing import TraceCache
from featviz.seeds import generator
from featviz.transforms import (
    BranchNoise,
    ChannelNoise,
    NetworkTransform,
    Transform,
    output_size,
)


class NoiseTape:
    """The draws of the network transforms of a run.

    ``noise`` is shared through ``traces``, since traced networks refer to its factors.

    Raises
    ------
    FeatvizError
        If a transform is given twice, or the network has nothing that it acts on.
    """

    def __init__(
        self,
        transforms: Sequence[NetworkTransform],
        model: Model,
        size: tuple[int, ...],
        steps: int,
        traces: TraceCache,
    ) -> None:
        by_type = {type(t): t for t in transforms}
        for kind in by_type:
            if kind not in (ChannelNoise, BranchNoise):
                raise FeatvizError(f"no network transform {kind.__name__}")
        if len(by_type) < len(transforms):
            raise FeatvizError("give channel_noise and branch_noise at most once each")
        self._draws = [
            _draws(by_type.get(kind), kind.__name__, steps, size)
            for kind in (ChannelNoise, BranchNoise)
        ]
        self.noise = traces.noise(
            model, size, channels=ChannelNoise in by_type, branches=BranchNoise in by_type
        )

    def draw_(self, draw: int) -> None:
        """Set the factors of a random draw, counted over the steps of the run."""
        channel, branch = ((sd, starts[draw]) for sd, starts in self._draws)
        self.noise.draw_(channel, branch)


def _draws(
    transform: NetworkTransform | None, stream: str, steps: int, size: tuple[int, ...]
) -> tuple[float, list[float]]:
    if transform is None:
        return 0.0, [0.0] * steps
    tape = transform.draw(generator(int(transform.seed), stream), steps, size)
    return transform.sd, tape[:, 0].tolist()


def applicable(
    transforms: Sequence[Transform], model: Model, size: tuple[int, ...]
) -> tuple[Transform, ...]:
    """Return ``transforms`` without noise that has nothing to act on in the network."""
    if not network_transforms(transforms):
        return tuple(transforms)
    sites = find_sites(model, output_size(transforms, size))
    acts: dict[type[Transform], bool] = {
        ChannelNoise: bool(sites.shapes),
        BranchNoise: max(sites.branches, default=-1) >= 0,
    }
    return tuple(t for t in transforms if acts.get(type(t), True))


def network_transforms(transforms: Sequence[Transform]) -> list[NetworkTransform]:
    """Return the transforms that change the network instead of the image."""
    return [t for t in transforms if isinstance(t, NetworkTransform)]


__all__ = ["NoiseTape", "applicable", "network_transforms"]
