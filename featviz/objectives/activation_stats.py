"""How the activations of photographs vary from image to image: statistics of a network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch

from featviz.errors import FeatvizError
from featviz.io.files import check_readable
from featviz.objectives.reduction import EPSILON
from featviz.types import Tensor

#: Most principal directions that are kept of a layer.
MOST_DIRECTIONS = 32
#: Images for each of them; fewer would be fitted rather than measured.
IMAGES_PER_DIRECTION = 8
#: Fewest images to measure anything from.
FEWEST = 16
#: The share of photographs, not fitted to, that are within the tolerance.
WITHIN = 0.95
#: Least variance of a standardized moment: where photographs hardly vary, noise in the image or the
#: network would cost more than anything unnatural.
LEAST_VARIANCE = 0.1
#: Least deviation of a moment, of its mean. Noise in the network shifts channels that hardly vary
#: among photographs by many of their own deviations.
RELATIVE = 0.1
_KIND = "featviz activation statistics"
_PARTS = ("mean", "scale", "directions", "variances", "residual", "tolerance")


def moments(activation: Tensor, axis: int) -> Tensor:
    """Return each image's channel means and standard deviations over positions, (B, 2C).

    ``axis`` is the unit axis of the activation; at least in single precision.
    """
    values = activation.movedim(axis, -1)
    rows = values.reshape(len(values), -1, values.shape[-1])
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    deviation = (rows.var(1, unbiased=False) + EPSILON).sqrt()
    return torch.cat([rows.mean(1), deviation], 1)


@dataclasses.dataclass(frozen=True, eq=False)
class LayerStats:
    """A normal distribution of one layer's moments: the mean and the deviation of each channel.

    Probabilistic PCA [Tipping1999]_ of the standardized moments: a few hundred images do not
    determine the covariance of a thousand channels, but its largest axes.

    Attributes
    ----------
    mean, scale
        (2C,): mean and standard deviation over the images, the latter enlarged where it is a small
        part of the mean, and infinite where a moment is the same in all images.
    directions, variances
        (K, 2C) and (K,): the largest principal axes of the standardized moments.
    residual
        (): the variance in every other direction.
    tolerance
        (): the distance that 95 % of images which were not fitted to are within.
    """

    mean: Tensor
    scale: Tensor
    directions: Tensor
    variances: Tensor
    residual: Tensor
    tolerance: Tensor

    @property
    def fits(self) -> bool:
        """Whether the parts have the shapes of one layer, and are numbers."""
        count, kept = len(self.mean), len(self.variances)
        shapes = ((count,), (count,), (kept, count), (kept,), (), ())
        parts = [getattr(self, name) for name in _PARTS]
        return (
            all(part.shape == shape for part, shape in zip(parts, shapes, strict=True))
            and not any(part.isnan().any() for part in parts)
            and count % 2 == 0
        )

    def to(self, device: torch.device) -> LayerStats:
        """Return the statistics on a device."""
        parts = {name: getattr(self, name).to(device) for name in _PARTS}
        return LayerStats(**parts)

    def distance(self, values: Tensor) -> Tensor:
        """Return the squared Mahalanobis distance of moments (B, 2C) for each degree of freedom.

        Near 1 for the images measured; (B,).
        """
        standard = (values - self.mean) / self.scale
        along = standard @ self.directions.T.to(standard.dtype)
        total = standard.square().sum(1) / self.residual
        total = total - (along.square() * (1 / self.residual - 1 / self.variances)).sum(1)
        return total / self.scale.isfinite().sum().clamp_min(1)


def fit(values: Tensor) -> LayerStats:
    """Return the statistics of moments (N, 2C) of N images."""
    stats = _fit(values)
    halves = values[::2], values[1::2]
    held_out = [_fit(a).distance(b.float()) for a, b in (halves, halves[::-1])]
    # What is nearer than the images are to one another on average is within in any case.
    tolerance = torch.cat(held_out).quantile(WITHIN).clamp_min(1)
    return dataclasses.replace(stats, tolerance=tolerance)


def _fit(values: Tensor) -> LayerStats:
    values = values.double()
    mean, scale = values.mean(0), values.std(0)
    is_live = scale > 1e-6 * scale.max().clamp_min(1e-12)
    scale = torch.where(is_live, scale.hypot(RELATIVE * mean), torch.inf)
    standard = (values - mean) / scale
    _, singular, axes = torch.linalg.svd(standard, full_matrices=False)
    variances = singular.square() / (len(values) - 1)
    degrees = int(is_live.sum())
    kept = min(MOST_DIRECTIONS, len(values) // IMAGES_PER_DIRECTION, max(degrees - 1, 0))
    residual = variances[kept:].sum() / max(degrees - kept, 1)
    residual = residual.clamp_min(LEAST_VARIANCE)
    variances = variances[:kept].clamp_min(residual)
    parts = (mean, scale, axes[:kept], variances, residual, torch.ones(()))
    return LayerStats(*(part.float() for part in parts))


@dataclasses.dataclass(frozen=True, eq=False)
class ActivationStats:
    """What ``featviz.calibrate(photographs, model=…)`` measures, for ``activation_prior``.

    Attributes
    ----------
    layers
        The statistics of each layer, by its name.
    size
        The spatial size of the images.
    count
        How many were measured.
    """

    layers: dict[str, LayerStats]
    size: tuple[int, ...]
    count: int

    def save(self, path: str | Path) -> Path:
        """Write the statistics to a safetensors file, atomically."""
        from featviz.io.files import write_bytes

        return write_bytes(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the statistics as a safetensors file."""
        from safetensors.torch import save

        tensors = {
            f"{name}/{part}": getattr(layer, part).contiguous()
            for name, layer in self.layers.items()
            for part in _PARTS
        }
        content = {
            "kind": _KIND,
            "layers": list(self.layers),
            "size": self.size,
            "count": self.count,
        }
        # One entry: several would be written in random order, and the bytes name the statistics.
        return save(tensors, {"featviz": json.dumps(content)})

    @classmethod
    def load(cls, path: str | Path) -> ActivationStats:
        """Read a file written by :meth:`save`.

        Raises
        ------
        FeatvizError
            If the file is missing, or holds something else.
        """
        check_readable(path)
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise FeatvizError(f"cannot read {str(path)!r}: {error.strerror}") from error
        return cls.from_bytes(data, repr(str(path)))

    @classmethod
    def from_bytes(cls, data: bytes, what: str) -> ActivationStats:
        """Read what :meth:`to_bytes` wrote; errors call it ``what``."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            tensors = load(data)
            length = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + length])
            content = json.loads(header["__metadata__"]["featviz"])
            if content["kind"] != _KIND:
                raise KeyError
            layers = {
                name: LayerStats(**{part: tensors[f"{name}/{part}"] for part in _PARTS})
                for name in content["layers"]
            }
            if not all(layer.fits for layer in layers.values()):
                raise ValueError
            return cls(layers, tuple(content["size"]), int(content["count"]))
        except (SafetensorError, KeyError, ValueError, TypeError, IndexError):
            raise FeatvizError(
                f"{what} holds no statistics of activations: create them with "
                "featviz calibrate PHOTOGRAPHS --model NETWORK"
            ) from None
