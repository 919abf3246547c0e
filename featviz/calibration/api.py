"""``calibrate``: statistics of a dataset's images, or of what they do to a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from featviz.calibration.activation_statistics import measure_activations
from featviz.calibration.image_statistics import measure_images
from featviz.errors import FeatvizError
from featviz.io.dataset import Dataset
from featviz.networks.model import Model
from featviz.objectives.activation_stats import ActivationStats
from featviz.param.stats import Stats
from featviz.process_state import shielded
from featviz.types import Size


@overload
def calibrate(
    dataset: Dataset,
    *,
    size: Size | None = None,
    channels: int = 3,
    progress: bool | None = None,
) -> Stats: ...
@overload
def calibrate(
    dataset: Dataset,
    *,
    model: Model,
    layers: Sequence[str] | None = None,
    size: Size | None = None,
    progress: bool | None = None,
) -> ActivationStats: ...
@shielded
def calibrate(
    dataset: Dataset,
    *,
    model: Model | None = None,
    layers: Sequence[str] | None = None,
    size: Size | None = None,
    channels: int | None = None,
    progress: bool | None = None,
) -> Stats | ActivationStats:
    """Return statistics of a dataset, for ``Fourier(stats=…)`` or, with a model, for a prior.

    Without ``model``: the mean, colour covariance and spectrum of the images. The spectrum is the
    root-mean-square magnitude (the mean magnitude cannot be computed in the same pass as the
    colours) of images whose mean is subtracted and whose borders are faded by a Hann window, so
    that their edges do not count as structure. Memory does not grow with the number of images.

    With ``model``: how the means and standard deviations of the channels, over the positions of
    one image, vary from image to image, for :func:`featviz.activation_prior`. In each layer they
    are described by a normal distribution whose covariance is that of probabilistic PCA
    [Tipping1999]_. Of more than 2,048 images a random choice of so many is used.

    One streaming pass. Images are centre-cropped to the aspect ratio of ``size`` (first, with a
    model, by its ``crop``) and resized to it; floats in [0, 1].

    Parameters
    ----------
    dataset
        A folder of images, or any iterable of tensors (C, *size), PIL images, paths, or tuples that
        start with one of these (as ``torch.utils.data`` datasets yield).
    model
        The network whose activations are measured.
    layers
        Names of layers with positions; by default all normalization layers that run once, or in a
        network without any all such convolutions and linear layers.
    size
        The size to measure at, by default the model's, or 224.
    channels
        The number of channels, 3 by default; images are read as gray (1) or RGB (3). With a model,
        it is the model's.
    progress
        Show a progress bar on a terminal.

    Raises
    ------
    FeatvizError
        If there are no images, all are of one colour, or one has a different number of channels;
        with a model, if there are fewer than 16, or no layer to measure.
    """
    if model is None:
        if layers is not None:
            raise FeatvizError("layers= is for the activations of a network: give model= as well")
        return measure_images(
            dataset,
            size=224 if size is None else size,
            channels=3 if channels is None else channels,
            progress=progress,
        )
    if not isinstance(model, Model):
        raise FeatvizError(f"model must be a featviz.Model, not {type(model).__name__}")
    if channels not in (None, model.channels):
        raise FeatvizError(f"the network takes {model.channels} channels, not {channels}")
    return measure_activations(dataset, model, layers=layers, size=size, progress=progress)
