"""Statistics of natural images: the covariance of their colours and their spectrum."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import torch

from featviz.errors import FeatvizError
from featviz.param.spectrum import unit_power
from featviz.resample import resize
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Stats:
    """What :func:`featviz.calibrate` measures, for ``Fourier(stats=…)`` and ``Maco(stats=…)``.

    Attributes
    ----------
    mean
        (C,): the mean value of each channel.
    covariance
        (C, C): the covariance of the channels over all pixels.
    magnitude
        (C, *half): the root-mean-square Fourier magnitude of each decorrelated channel, on the
        half spectrum of ``torch.fft.rfftn`` (orthonormal, windowed), with the mean subtracted.
    size
        The spatial size of ``magnitude``.
    count
        The number of images measured.
    """

    mean: Tensor
    covariance: Tensor
    magnitude: Tensor
    size: tuple[int, ...]
    count: int

    @property
    def channels(self) -> int:
        """The number of channels."""
        return len(self.mean)

    @functools.cached_property
    def root(self) -> Tensor:
        """The symmetric square root of the covariance, (C, C)."""
        values, vectors = torch.linalg.eigh(self.covariance.double())
        floor = values.max() * 1e-8
        return ((vectors * values.clamp_min(floor).sqrt()) @ vectors.T).float()

    def envelope(self, size: tuple[int, ...]) -> Tensor:
        """Return the amplitudes (C, *half) for images of ``size``.

        White noise filtered by them keeps its standard deviation, so that learning rates carry over
        from the analytic spectrum.
        """
        if len(size) != len(self.size):
            raise FeatvizError(f"stats have {len(self.size)} spatial axes, not {len(size)}")
        full = torch.fft.fftshift(self.magnitude, dim=tuple(range(1, len(size))))
        half = (*size[:-1], size[-1] // 2 + 1)
        amplitude = resize(full[None].float(), half, align_corners=True)[0]
        amplitude = torch.fft.ifftshift(amplitude, dim=tuple(range(1, len(size))))
        # The mean was subtracted: the zero frequency gets the largest amplitude.
        origin = (slice(None), *(0,) * len(size))
        amplitude[origin] = amplitude.flatten(1).amax(1)
        return unit_power(amplitude, size)

    def save(self, path: str | Path) -> Path:
        """Write the statistics to a safetensors file, atomically."""
        from safetensors.torch import save

        from featviz.io.files import write_bytes

        tensors = {
            "mean": self.mean.float().contiguous(),
            "covariance": self.covariance.float().contiguous(),
            "magnitude": self.magnitude.float().contiguous(),
            "size": torch.tensor(self.size),
            "count": torch.tensor(self.count),
        }
        return write_bytes(path, save(tensors))

    @classmethod
    def load(cls, path: str | Path) -> Stats:
        """Read a file written by :meth:`save`.

        Raises
        ------
        FeatvizError
            If the file is missing, is not a safetensors file, or lacks an entry.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(str(path))
            return cls(
                tensors["mean"],
                tensors["covariance"],
                tensors["magnitude"],
                tuple(tensors["size"].tolist()),
                int(tensors["count"]),
            )
        except KeyError as error:
            raise FeatvizError(
                f"stats {str(path)!r} lack {error}: create them with calibrate"
            ) from None
        except (OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:120]
            raise FeatvizError(f"cannot read stats {str(path)!r}: {reason}") from error


@functools.lru_cache(maxsize=8)
def _load(path: str, modified: float) -> Stats:
    return Stats.load(path)


def resolve(stats: Stats | str | Path | None) -> Stats | None:
    """Return statistics, loading them from a file if necessary; a changed file is loaded again."""
    if stats is None or isinstance(stats, Stats):
        return stats
    path = Path(stats)
    return _load(str(path), path.stat().st_mtime if path.exists() else 0.0)


def check(stats: Stats | None, channels: int | None) -> None:
    """Raise :class:`FeatvizError` if statistics have another channel count."""
    if stats is not None and channels not in (None, stats.channels):
        raise FeatvizError(f"stats have {stats.channels} channels, but the images have {channels}")
