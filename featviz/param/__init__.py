"""Parameterizations: how free parameters make an image."""

from __future__ import annotations

from featviz import spec
from featviz.param.base import ColorParam, Param
from featviz.param.fourier import Fourier
from featviz.param.pixel import Pixel

NAMES: dict[str, type[Param]] = {"fourier": Fourier, "pixel": Pixel}


def parse(source: str) -> Param:
    """Return the parameterization that a text names: ``pixel`` or ``fourier:decay=1.2``."""
    made: Param = spec.read(source, NAMES, "parameterization")
    return made


def text(param: Param) -> str | None:
    """Return the text that :func:`parse` reads back, or None where there is none."""
    return spec.write(param, NAMES)


__all__ = ["ColorParam", "Fourier", "Param", "Pixel", "parse", "text"]
