"""Real-time saliency: a network that is trained to draw masks, and then draws them in one pass."""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import nn
from torch.nn import functional as F

from featviz.attribution.baselines import blurred
from featviz.attribution.labelled_images import checked_images, checked_labels
from featviz.errors import FeatvizError
from featviz.io.inputs import read_image
from featviz.networks.model import Model
from featviz.optim.collecting import logits_layer, predicted_classes
from featviz.process_state import shielded
from featviz.seeds import generator
from featviz.types import Tensor
from featviz.validation import positive_int

#: Of the loss: weights of the total variation, the mean of the mask, what is left of the class
#: where the mask hides it, and the power of that. The paper has 10, 1e-3 (of sums), 5 and 0.3.
_VARIATION, _AREA, _HIDDEN, _POWER = 1.0, 1.0, 2.0, 0.3
#: Weight of the mean of masks that are drawn for a class that is not the image's.
_WRONG_CLASS = 1.0
_RATE = 3e-3


class MaskingNetwork(nn.Module):
    """Draws which part of an image shows a class: an encoder, a filter by class, a decoder.

    Takes images (B, C, H, W) in [0, 1] and classes (B,), and returns masks (B, 1, H, W) in [0, 1].
    Train it by :func:`fit_masking_network`. [Dabkowski2017]_

    The paper's encoder is the classifier's own features; here it is trained from scratch, so that
    any classifier can be explained, but as a black box.
    """

    def __init__(self, channels: int, classes: int, *, width: int = 24, levels: int = 3) -> None:
        super().__init__()
        widths = [width * min(2**k, 4) for k in range(levels + 1)]
        self.channels, self.classes = channels, classes
        self.first = _block(channels, widths[0])
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(_block(a, b, 2) for a, b in pairs)
        self.up = nn.ModuleList(_block(a + b, a) for a, b in pairs)
        self.embedding = nn.Embedding(classes, widths[-1])
        self.last = nn.Conv2d(widths[0], 1, 1)

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        seen = [self.first(images - 0.5)]
        for down in self.down:
            seen.append(down(seen[-1]))
        features = seen.pop()
        wanted = self.embedding(classes)[:, :, None, None]
        # Positions that do not look like the class are shut, which the decoder cannot undo.
        gate = torch.sigmoid((features * wanted).sum(1, keepdim=True))
        features = features * gate
        for up in reversed(self.up):
            skipped = seen.pop()
            larger = F.interpolate(features, skipped.shape[2:], mode="bilinear")
            features = up(torch.cat([skipped, larger], 1))
        mask = torch.sigmoid(self.last(features))
        return mask * F.interpolate(gate, mask.shape[2:], mode="bilinear")


def _block(before: int, after: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(4, after), nn.ReLU())


@dataclasses.dataclass(frozen=True)
class FittedMasks:
    """A trained masking network, and its losses (steps,)."""

    network: MaskingNetwork
    losses: Tensor

    @torch.no_grad()
    def __call__(self, images: Tensor, classes: Tensor) -> Tensor:
        """Return masks (B, 1, H, W) of images (B, C, H, W) in [0, 1] for classes (B,).

        Raises
        ------
        FeatvizError
            If images or classes are of another kind or out of their range.
        """
        images = read_image(images, self.network.channels, "images")
        classes = checked_labels(classes, len(images), self.network.classes, "classes")
        device = self.network.last.weight.device
        return self.network(images.to(device), classes.to(device)).cpu()


@shielded
def fit_masking_network(
    model: Model,
    images: Tensor,
    *,
    classes: Tensor | None = None,
    steps: int = 1000,
    batch_size: int = 16,
    width: int = 24,
    levels: int = 3,
    seed: int = 0,
) -> FittedMasks:
    """Train a network to draw masks that keep a class of ``model`` and whose complement hides it.

    The loss is that of the paper: total variation and mean of the mask, −log p(class) of what the
    mask shows, and p(class) to the power of 0.3 of what it does not show. What is not shown is
    blurred, or one random colour. For another class than the image's the mask is to be empty.
    [Dabkowski2017]_

    Parameters
    ----------
    model
        The classifier; it is left as it is.
    images
        (N, C, H, W) in [0, 1], those that the classifier was trained on or others of their kind;
        with few of them, the masks of other images are no good.
    classes
        (N,): by default the predicted ones.
    steps, batch_size
        Of Adam.
    width, levels
        Channels of the first layer, a multiple of 4, and how often the resolution is halved.

    Raises
    ------
    FeatvizError
        If the network has no class logits, numbers do not fit, or the loss is not finite.
    """
    images = checked_images(model, images)
    for name, value in (("steps", steps), ("batch_size", batch_size), ("levels", levels)):
        positive_int(name, value)
    if images.ndim != 4 or width < 4 or width % 4:
        raise FeatvizError("masking networks take images (N, C, H, W), and a width of 4, 8, 12, …")
    size = tuple(images.shape[2:])
    layer = logits_layer(model, size)
    if layer is None:
        raise FeatvizError("masks are of classes, and the network has no class logits")
    count = model.layer(layer, size).units
    given = predicted_classes(model, images, layer) if classes is None else classes
    labels = checked_labels(given, len(images), count, "classes")
    rng, device = generator(seed, "masking network"), model.device
    with torch.random.fork_rng():  # modules draw weights when they are made
        network = MaskingNetwork(model.channels, count, width=width, levels=levels)
    _draw_weights_(network, rng)
    network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), _RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = torch.zeros(steps)
    for step in range(steps):
        rows = torch.randint(len(images), (batch_size,), generator=rng)
        other = torch.randint(1, count, (batch_size,), generator=rng) if count > 1 else None
        colours = torch.rand(batch_size, model.channels, 1, 1, generator=rng)
        flat = torch.rand(batch_size, 1, 1, 1, generator=rng) < 0.5
        batch, wanted = images[rows].to(device), labels[rows].to(device)
        hidden = torch.where(flat.to(device), colours.to(batch), blurred(batch))
        masks = network(batch, wanted)
        shown = [hidden.lerp(batch, m) for m in (masks, 1 - masks)]
        with model.session():
            table = model.layers(size)
            logits = model.capture(torch.cat(shown), [layer], table)[layer]
        kept, left = logits.log_softmax(1).chunk(2)
        rest = left.gather(1, wanted[:, None]).exp().clamp_min(1e-6)
        loss = (
            _VARIATION * _variation(masks)
            + _AREA * masks.mean()
            - kept.gather(1, wanted[:, None]).mean()
            + _HIDDEN * rest.pow(_POWER).mean()
        )
        if other is not None:
            loss = loss + _WRONG_CLASS * network(batch, (wanted + other.to(device)) % count).mean()
        if not loss.isfinite():
            raise FeatvizError(f"the loss of the masking network is not finite at step {step}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses[step] = float(loss.detach())
    return FittedMasks(network.eval().requires_grad_(False), losses)


def _draw_weights_(network: nn.Module, rng: torch.Generator) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=rng)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, generator=rng)


def _variation(masks: Tensor) -> Tensor:
    return sum((masks.diff(dim=axis).square().mean() for axis in (2, 3)), masks.new_zeros(()))
