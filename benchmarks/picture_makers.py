"""Ways to make pictures of classes: featviz's settings, and those it is compared with."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from peers import Dreamlens, LucidStyle

import featviz as fv

#: Makes the images (B, 3, *size) of classes of a network, from a seed.
Maker = Callable[[fv.Model, list[int], int], torch.Tensor]

_SOFT = "jitter:0.07,rotate:10,scale:0.75:1.15,noise:0.04"
_NOISE = "channel_noise:0.07,branch_noise:0.1"
#: As a file of that version is read: what has become a setting since is what it was then.
_VERSION_0_1 = fv.Settings.from_record(
    {
        "version": "0.1",
        "steps": 512,
        "size": [224, 224],
        "param": "fourier",
        "transforms": "standard",
        "optimizer": "adam",
        "lr": 0.05,
        "redirect": 16,
        "precision": "fp32",
    }
)
SETTINGS: dict[str, dict[str, Any]] = {
    "fast": {"quality": "fast"},
    "standard": {},
    "best": {"quality": "best"},
    "lucid": {"quality": "lucid"},
    "featviz 0.1": {"settings": dataclasses.replace(_VERSION_0_1, size=None)},
    "maco": {"param": "maco", "prior": 0},
}
INGREDIENTS: dict[str, dict[str, Any]] = {
    "standard": {},
    "no noise in the network": {"transforms": f"pad:0:blur,{_SOFT}"},
    "channels only": {"transforms": f"pad:0:blur,{_SOFT},channel_noise:0.07"},
    "no prior": {"prior": 0},
    "no focus": {"focus": 0},
    "spots beyond the frame": {"transforms": f"pad:0:spots,{_SOFT},{_NOISE}"},
    "mirror beyond the frame": {"transforms": f"{_SOFT},{_NOISE}"},
    "the full size throughout": {"coarse": 0},
    "decay 1": {"param": "fourier:decay=1"},
    "colour as fine as luminance": {"param": "fourier:chroma=0"},
    "no weight decay, and the lower rate of then": {"weight_decay": 0, "focus": 1},
    "neither weight decay nor focus": {"weight_decay": 0},
    "rate 0.2": {"lr": 0.2},
    "rate 0.4": {"lr": 0.4},
    "cosine from the first step": {"schedule": "cosine"},
}


#: featviz's own.
OURS = SETTINGS | INGREDIENTS


def featviz(settings: dict[str, Any]) -> Maker:
    def make(model: fv.Model, classes: list[int], seed: int) -> torch.Tensor:
        goals = [fv.class_logit(c) for c in classes]
        return fv.render(model, goals, seed=seed, **settings).images

    return make


def lucid_style(model: fv.Model, classes: list[int], seed: int) -> torch.Tensor:
    """256 steps of the classical loop, ten classes at a time."""
    torch.manual_seed(seed)
    images = []
    for start in range(0, len(classes), 10):
        loop = LucidStyle(model, "_fc", classes[start : start + 10])
        loop.times(256, 0)
        with torch.no_grad():
            images += [canvas() for canvas, _ in loop.parts]
    return torch.cat(images)


def dreamlens(model: fv.Model, classes: list[int], seed: int) -> torch.Tensor:
    """Dreamlens, one image after the other, by its own settings and 256 steps."""
    torch.manual_seed(seed)
    return Dreamlens(model, "_fc", classes).images("maximize", steps=256)


def dreamlens_maco(model: fv.Model, classes: list[int], seed: int) -> torch.Tensor:
    """MACO as published, in dreamlens' version, but for 4 crops in each of 256 steps, not 32."""
    torch.manual_seed(seed)
    return Dreamlens(model, "_fc", classes).images("maco", steps=256, crops=4)


PEERS: dict[str, Maker] = {
    "lucid-style": lucid_style,
    "dreamlens": dreamlens,
    "maco of dreamlens": dreamlens_maco,
}
MAKERS = {name: featviz(settings) for name, settings in OURS.items()} | PEERS
