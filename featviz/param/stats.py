"""Statistics of natural images: what decorrelates their colours and how their spectrum falls."""

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
        (C, *half): the root mean squared Fourier magnitude of each decorrelated channel, on the
        half spectrum of ``torch.fft.rfftn`` (orthonormal, windowed), the mean taken out.
    size
        The spatial size that ``magnitude`` belongs to.
    count
        How many images it was measured on.
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
        """Return the amplitudes (C, *half) for images of ``size``, as white noise keeps its
        deviation, so that learning rates carry over from the analytic spectrum.
        """
        if len(size) != len(self.size):
            raise FeatvizError(f"stats are of {len(self.size)} spatial axes, not {len(size)}")
        full = torch.fft.fftshift(self.magnitude, dim=tuple(range(1, len(size))))
        half = (*size[:-1], size[-1] // 2 + 1)
        made = resize(full[None].float(), half, align_corners=True)[0]
        made = torch.fft.ifftshift(made, dim=tuple(range(1, len(size))))
        # The mean was taken out: the zero frequency moves as its neighbours do.
        origin = (slice(None), *(0,) * len(size))
        made[origin] = made.flatten(1).amax(1)
        return unit_power(made, size)

    def save(self, path: str | Path) -> Path:
        """Write the statistics as safetensors, whole or not at all."""
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
        """Read what :meth:`save` wrote.

        Raises
        ------
        FeatvizError
            If the file is missing, no safetensors file, or lacks an entry.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found = load_file(str(path))
            return cls(
                found["mean"],
                found["covariance"],
                found["magnitude"],
                tuple(found["size"].tolist()),
                int(found["count"]),
            )
        except KeyError as error:
            raise FeatvizError(
                f"stats {str(path)!r} lack {error}: make them with calibrate"
            ) from None
        except (OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:120]
            raise FeatvizError(f"cannot read stats {str(path)!r}: {reason}") from error


@functools.lru_cache(maxsize=8)
def _load(path: str, changed: float) -> Stats:
    return Stats.load(path)


def resolve(stats: Stats | str | Path | None) -> Stats | None:
    """Return statistics given as such or as a file; a file is read again when it has changed."""
    if stats is None or isinstance(stats, Stats):
        return stats
    path = Path(stats)
    return _load(str(path), path.stat().st_mtime if path.exists() else 0.0)


def check(stats: Stats | None, channels: int | None) -> None:
    """Raise :class:`FeatvizError` if statistics are of another channel count."""
    if stats is not None and channels not in (None, stats.channels):
        raise FeatvizError(
            f"stats are of {stats.channels} channels, but the images have {channels}"
        )
