"""Type aliases and small types shared by the signatures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch

try:
    from typing import Self as Self
    from typing import Unpack as Unpack
except ImportError:  # Python 3.10
    from typing_extensions import Self as Self
    from typing_extensions import Unpack as Unpack

Tensor: TypeAlias = torch.Tensor
#: The free parameters of the images: leaf tensors by name, batch axis first, (B, ...).
State: TypeAlias = dict[str, Tensor]
#: One side for a square image, or all sides: (W,), (H, W) or (D, H, W).
Size: TypeAlias = int | tuple[int, ...]
#: One seed for the first sample (sample i then uses seed + i), or one per sample.
Seed: TypeAlias = int | Sequence[int]
QualityName: TypeAlias = Literal["fast", "standard", "best", "lucid"]
ScheduleName: TypeAlias = Literal["constant", "cosine", "flat_cosine"]
#: What ``method=`` of an attribution may be; a test keeps it equal to the registry.
MethodName: TypeAlias = Literal[
    "auto",
    "saliency",
    "sensitivity",
    "input_x_gradient",
    "integrated_gradients",
    "smooth_grad",
    "smooth_grad_squared",
    "var_grad",
    "noise_grad",
    "fusion_grad",
    "full_grad",
    "xrai",
    "guided_backprop",
    "deconvnet",
    "grad_cam",
    "cam",
    "grad_cam_plus_plus",
    "layer_cam",
    "score_cam",
    "guided_grad_cam",
    "lrp",
    "pattern_attribution",
    "deep_taylor",
    "deep_lift",
    "occlusion",
    "feature_ablation",
    "kernel_shap",
    "lime",
    "prediction_difference",
    "rise",
    "meaningful_perturbation",
    "extremal_perturbation",
    "fido",
]
Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]
#: A ``torch.optim`` class, or any function that builds an optimizer from a list of tensors.
OptimizerFactory: TypeAlias = Callable[[list[Tensor]], torch.optim.Optimizer]
#: Maps the progress of a run, from 0 (first step) to 1 (last), to a learning-rate factor.
Schedule: TypeAlias = Callable[[float], float]


@dataclasses.dataclass(frozen=True)
class LayerInfo:
    """A layer, as recorded by a probing pass.

    ``shape`` is the output shape of one sample (without the batch axis), ``axis`` the unit axis of
    the whole activation (the batch is axis 0), ``units`` the number of units, and ``calls`` how
    often the module runs in one forward pass. ``labels`` says what each axis of the activation
    holds, as far as the pass shows (:mod:`featviz.networks.axes`): ``unit``, spatial axes of the
    image by number (``0``; ``01`` for two flattened into tokens) or ``?``. ``batched`` is False if
    the first axis is not the batch; such a layer is listed, but cannot be used. ``overwritten`` is
    whether the network modifies the activation in place after the layer returned it.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    axis: int
    units: int
    calls: int = 1
    labels: tuple[str, ...] = ()
    batched: bool = True
    overwritten: bool = False

    @property
    def guessed(self) -> bool:
        """Whether the unit axis is a guess from the shape, and another one would be possible."""
        return self.labels.count("unit") != 1 and sum(side > 1 for side in self.shape) > 1

    def is_map(self, axes: int) -> bool:
        """Whether its positions are the ``axes`` spatial axes of the image, in their order."""
        labels = tuple(label for i, label in enumerate(self.labels) if i and i != self.axis)
        return self.batched and labels == tuple(map(str, range(axes)))

    def is_tokens(self, axes: int) -> bool:
        """Whether its positions are tokens of the image's patches, perhaps after a class token."""
        labels = tuple(label for i, label in enumerate(self.labels) if i and i != self.axis)
        return self.batched and labels == ("".join(map(str, range(axes))),)

    @property
    def positions(self) -> tuple[int, ...]:
        """The shape without its unit axis: (H, W) for a feature map, (N,) for tokens, or ()."""
        return self.shape[: self.axis - 1] + self.shape[self.axis :]
