"""Normalization of amplitudes over half spectra."""

from __future__ import annotations

from featviz.types import Tensor


def unit_power(amplitude: Tensor, size: tuple[int, ...]) -> Tensor:
    """Scale amplitudes (…, *half) so that white noise keeps its standard deviation when filtered.

    ``half`` is the shape of ``torch.fft.rfftn`` over ``size``.
    """
    axes = len(size)
    # Columns but the first (and, for an even side, the last) represent two frequencies each.
    weight = amplitude.new_full(amplitude.shape[-axes:], 2)
    weight[..., 0] = 1
    if size[-1] % 2 == 0:
        weight[..., -1] = 1
    power = (weight * amplitude.square()).flatten(-axes).sum(-1) / weight.sum()
    return amplitude / power.sqrt().clamp_min(1e-12).reshape(*power.shape, *(1,) * axes)
