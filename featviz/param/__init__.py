"""Parameterizations: how free parameters make an image."""

from __future__ import annotations

import dataclasses

from featviz import codec as spec
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

NAMES: dict[str, type[Param]] = {
    "fourier": Fourier,
    "pixel": Pixel,
    "laplacian": Laplacian,
    "cppn": Cppn,
    "maco": Maco,
}
_LATENT = ("label", "prior", "truncation")


def parse(source: str) -> Param:
    """Return the parameterization that a text names.

    ``pixel``, ``fourier:decay=1.2``, ``gan:faces``, ``gan:eyes:label=blue:prior=truncate``,
    ``alpha`` and ``alpha:laplacian`` (transparent), …

    Raises
    ------
    FeatvizError
        For an unknown name or setting.
    """
    kind, _, rest = source.partition(":")
    if kind == "gan":
        return _generator(source)
    if kind == "alpha":
        return Alpha(inner=parse(rest or "fourier"))
    made: Param = spec.read(source, NAMES | {"alpha": Alpha}, "parameterization")
    return made


def _generator(source: str) -> Latent:
    _, *words = source.split(":")
    settings: dict[str, str | float] = {}
    for word in words[1:]:
        key, _, value = word.partition("=")
        if key not in _LATENT or not value:
            raise FeatvizError(f"{source!r}: a generator takes {', '.join(_LATENT)} as key=value")
        try:
            settings[key] = float(value) if key == "truncation" else value
        except ValueError:
            raise FeatvizError(f"{source!r}: truncation must be a number") from None
    return generators.load(words[0] if words else "", **settings)


def text(param: Param) -> str | None:
    """Return the text that :func:`parse` reads back, or None where there is none."""
    if isinstance(param, Latent):
        if param.name is None or param.start is not None:
            return None
        defaults = {f.name: f.default for f in dataclasses.fields(Latent)}
        words = [
            f"{key}={getattr(param, key)}"
            for key in _LATENT
            if getattr(param, key) != defaults[key]
        ]
        return ":".join([param.name, *words])
    if getattr(param, "start", None) is not None:
        return None
    if isinstance(param, Alpha):
        inner = text(param.inner)
        plain = param.cover == Alpha().cover.sized(1, param.shape)
        return f"alpha:{inner}" if inner and plain else None
    return spec.write(param, NAMES)


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
    "parse",
    "text",
]
