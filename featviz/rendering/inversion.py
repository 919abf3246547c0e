"""Generator inversion: find the latents of given images by optimization."""

from __future__ import annotations

import dataclasses

import torch

from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.objectives import input_difference
from featviz.optim.loop import optimize
from featviz.optim.optimizers import Cosine, adam
from featviz.param.latent import Latent
from featviz.process_state import shielded
from featviz.types import Tensor
from featviz.validation import SEED_LIMIT, real, whole


@shielded
def invert(
    param: Latent, images: Tensor, *, steps: int = 300, seed: int = 0, lr: float = 0.1
) -> Latent:
    """Return ``param`` with start latents whose generated images best match ``images``.

    ``images`` (B, C, *size) are floats in [0, 1]. The loop minimizes the root mean squared
    difference. The result depends on the seed, and a generator can only approximate images that are
    not on its manifold.

    Raises
    ------
    FeatvizError
        If the images do not fit the generator's channels.
    """
    if not isinstance(param, Latent):
        raise FeatvizError(f"invert takes a param.Latent, not {type(param).__name__}")
    if not isinstance(images, torch.Tensor):
        raise FeatvizError(f"invert takes a float tensor of images, not {type(images).__name__}")
    seed = whole("seed", seed, -SEED_LIMIT, SEED_LIMIT - 1)
    lr = real("lr", lr, 0, 1e6, above=True)
    if images.ndim < 4 or not len(images) or not images.is_floating_point():
        raise FeatvizError(f"invert takes float images (B, C, *size), not {tuple(images.shape)}")
    size, channels = tuple(images.shape[2:]), images.shape[1]
    model = Model(torch.nn.Identity(), size=size, channels=channels)
    sized = dataclasses.replace(param, start=None).sized(channels, size)
    latents: list[Tensor] = []
    for i, image in enumerate(images):
        result = optimize(
            model,
            -input_difference(image),
            param=sized,
            steps=steps,
            seeds=[seed + i],
            optimizer=adam(lr),
            schedule=Cosine(),
        )
        latents.append(result.state["z"])
    return dataclasses.replace(param, start=torch.cat(latents))
