"""The parameterization of a run, with the size and channels that a network takes."""

from __future__ import annotations

import dataclasses

from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.optim.resolved import check_memory
from featviz.param import ColorParam, Fourier, Param
from featviz.param import parse as parse_param
from featviz.types import Size

#: Decay of the Fourier basis for signals (L,), whose spectra have no common shape, and volumes.
SIGNAL_DECAY, VOLUME_DECAY = 0.0, 1.0


def sized_param(param: Param | str | None, size: Size | None, usual: str, model: Model) -> Param:
    """Return ``param`` with the size and channels that ``model`` takes unless others are given.

    ``usual`` is what None stands for where the network takes images.

    Raises
    ------
    FeatvizError
        If it is no parameterization, or does not fit the size or the network.
    """
    if isinstance(param, type):
        raise FeatvizError(f"param takes an instance: fv.param.{param.__name__}()")
    if not isinstance(param, (Param, str, type(None))):
        raise FeatvizError(
            "param is one parameterization for all images, such as fourier or "
            f"fv.param.Fourier(), not {type(param).__name__}"
        )
    if param == "fft":
        raise FeatvizError("no parameterization 'fft': lucid's fft is called fourier")
    if param is None and len(model.size) == 2:
        param = usual
    if isinstance(param, str):
        param = parse_param(param)
    param = param or Fourier(decay=SIGNAL_DECAY if len(model.size) == 1 else VOLUME_DECAY)
    if size is not None:
        sized = dataclasses.replace(param, size=size)
        if param.size is not None and param.shape != sized.shape:
            raise FeatvizError(f"size {size} does not fit a parameterization of {param.shape}")
        param = sized
    if isinstance(param, ColorParam) and param.channels not in (None, model.channels):
        raise FeatvizError(
            f"param draws {param.channels} channels, but the network takes {model.channels}"
        )
    param = param.sized(model.channels, model.size)
    check_memory(model, param)
    return param
