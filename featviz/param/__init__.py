"""Parameterizations: maps from free parameters to images."""

from __future__ import annotations

import dataclasses

from featviz import codec, plugins
from featviz.errors import FeatvizError
from featviz.param import generators
from featviz.param.alpha import Alpha
from featviz.param.base import Basis, ColorParam, Param
from featviz.param.bounded import Bounded, Canvas
from featviz.param.combine import Interpolated, Masked, Shared
from featviz.param.cppn import Cppn
from featviz.param.fourier import Fourier
from featviz.param.laplacian import Laplacian
from featviz.param.latent import Latent
from featviz.param.maco import Maco
from featviz.param.mask import Mask
from featviz.param.patch import Patch
from featviz.param.pixel import Pixel
from featviz.param.tokens import Tokens

NAMES: dict[str, type[Param]] = {
    "fourier": Fourier,
    "pixel": Pixel,
    "laplacian": Laplacian,
    "cppn": Cppn,
    "maco": Maco,
}
_LATENT_SETTINGS = ("label", "prior", "truncation")


def parse(source: str) -> Param:
    """Return the parameterization that a text describes.

    ``pixel``, ``fourier:decay=1.2``, ``gan:faces``, ``gan:eyes:label=blue:prior=truncate``,
    ``alpha`` and ``alpha:laplacian`` (transparent), …

    Raises
    ------
    FeatvizError
        For an unknown name or setting.
    """
    name, _, inner = source.partition(":")
    if name == "gan":
        return _generator(source)
    if name == "alpha":
        return Alpha(inner=parse(inner or "fourier"))
    param: Param = codec.read(
        source, NAMES | {"alpha": Alpha}, "parameterization", plugins.PARAMETERIZATIONS, Param
    )
    return param


def _generator(source: str) -> Latent:
    _, *words = source.split(":")
    settings: dict[str, str | float] = {}
    for word in words[1:]:
        key, _, value = word.partition("=")
        if key not in _LATENT_SETTINGS or not value:
            raise FeatvizError(
                f"{source!r}: a generator takes {', '.join(_LATENT_SETTINGS)} as key=value"
            )
        try:
            settings[key] = float(value) if key == "truncation" else value
        except ValueError:
            raise FeatvizError(f"{source!r}: truncation must be a number") from None
    return generators.load(words[0] if words else "", **settings)


def text(param: Param) -> str | None:
    """Return the text that :func:`parse` turns back into ``param``, or None if there is none."""
    if isinstance(param, Latent):
        if param.name is None or param.start is not None:
            return None
        defaults = {f.name: f.default for f in dataclasses.fields(Latent)}
        words = [
            f"{key}={getattr(param, key)}"
            for key in _LATENT_SETTINGS
            if getattr(param, key) != defaults[key]
        ]
        return ":".join([param.name, *words])
    if getattr(param, "start", None) is not None:
        return None
    if isinstance(param, Alpha):
        inner = text(param.inner)
        default_cover = param.cover == Alpha().cover.sized(1, param.shape)
        return f"alpha:{inner}" if inner and default_cover else None
    return codec.write(param, NAMES, plugins.PARAMETERIZATIONS)


def __getattr__(name: str) -> Param:
    from featviz.other_libraries import FUNCTIONS

    hint = f"; call {FUNCTIONS[name]}" if name in FUNCTIONS else ""
    raise AttributeError(f"featviz.param has no {name!r}{hint}")


__all__ = [
    "Alpha",
    "Basis",
    "Bounded",
    "Canvas",
    "ColorParam",
    "Cppn",
    "Fourier",
    "Interpolated",
    "Laplacian",
    "Latent",
    "Maco",
    "Mask",
    "Masked",
    "Param",
    "Patch",
    "Pixel",
    "Shared",
    "Tokens",
    "parse",
    "text",
]
