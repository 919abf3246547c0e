"""Private APIs of torch that featviz relies on, each guarded by a check.

A torch release may change them without notice. If one is missing or behaves differently, featviz
falls back to public operations: slower, with the same results up to rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import fx
from torch.nn import functional as F

from featviz.types import Tensor


def overrides_active() -> bool:
    """Return whether a ``TorchFunctionMode`` is active, as in :mod:`featviz.networks.gradients`.

    The mode behind ``torch.set_default_device`` does not count, since it changes no operation. If
    torch does not tell, assume that one is active: callers then run the unchanged modules.
    """
    try:
        from torch.overrides import _get_current_function_mode_stack
        from torch.utils._device import DeviceContext

        return not all(isinstance(m, DeviceContext) for m in _get_current_function_mode_stack())
    except (ImportError, AttributeError):
        return True


def flat_graph(run: Callable[[Tensor], Sequence[Tensor]], images: Tensor) -> fx.GraphModule:
    """Trace ``run`` on ``images`` into a graph of ATen operations, before autograd's dispatch."""
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(run, pre_dispatch=True, _allow_non_fake_inputs=True)(images)


@functools.cache
def fused_convolution() -> Callable[..., Tensor] | None:
    """Return oneDNN's convolution with a fused activation, or None if it is not available.

    Its arguments are ``(images, weight, bias, padding, stride, dilation, groups, name, scalars,
    algorithm)``. It is returned only if it agrees with ``F.conv2d`` on a small example.
    """
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        kernel: Callable[..., Tensor] = torch.ops.mkldnn._convolution_pointwise
        images = torch.linspace(-1, 1, 2 * 4 * 5 * 6).view(2, 4, 5, 6)
        weight = torch.linspace(-1, 1, 3 * 4 * 3 * 3).view(3, 4, 3, 3)
        bias = torch.tensor([0.5, -1.0, 2.0])
        with torch.no_grad():
            args = (images, weight, bias, [1, 1], [1, 1], [1, 1], 1)
            plain = F.conv2d(images, weight, bias, padding=1)
            clipped = kernel(*args, "hardtanh", [0.0, 6.0], "")
            rectified = kernel(*args, "relu", [], "")
        agrees = torch.allclose(clipped, plain.clamp(0, 6), atol=1e-4)
        agrees = agrees and torch.allclose(rectified, plain.relu(), atol=1e-4)
    except (AttributeError, RuntimeError, TypeError):
        return None
    return kernel if agrees else None
