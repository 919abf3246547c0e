"""Circuits: which channels of a layer excite and inhibit a unit above it, and in which places."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from PIL import Image, ImageColor, ImageDraw

from featviz.errors import FeatvizError
from featviz.io import sheets
from featviz.networks.coercion import as_model
from featviz.networks.gradients import linear_relu
from featviz.networks.model import Model
from featviz.objectives import channel, neuron, per_sample
from featviz.optim.result import Result
from featviz.optim.settings import Settings
from featviz.optim.settings_keywords import SettingsKeywords
from featviz.options import takes
from featviz.process_state import shielded
from featviz.recipes import drawing
from featviz.recipes.layer_gradients import attribute_batch
from featviz.rendering.api import render
from featviz.types import Seed, Tensor, Unpack
from featviz.validation import positive_int

#: Colours of excitation and inhibition, and the sides of pictures and of weights, in pixels.
_EXCITES, _INHIBITS = "#b2182b", "#2166ac"
_SIDE, _MAP, _GAP, _HEIGHT = 150, 72, 18, 190
#: The share of a map's largest weight from which on a place belongs to its support.
_SUPPORT = 1e-3


@shielded
def expanded_weights(model: Model | str, lower: str, upper: str, units: Sequence[int]) -> Tensor:
    """Return the weights (units, K, *grid) from the channels of ``lower`` to units of ``upper``.

    They are the gradient of each unit's centre by the layer below, with all ReLUs between taken to
    be linear: what convolutions, normalizations and skip connections between the two layers amount
    to, the "expanded weights" of [Olah2020]_. The centre of the unit is the middle of the grid.

    Raises
    ------
    FeatvizError
        If ``upper`` does not depend on ``lower``, or a layer has no positions.
    """
    model = as_model(model, "expanded_weights")
    if not len(units):
        raise FeatvizError("name at least one unit of the upper layer")
    gray = torch.full((len(units), model.channels, *model.size), 0.5)
    goals = [neuron(upper, unit) for unit in units]
    with linear_relu():
        goal = per_sample(goals) if len(goals) > 1 else goals[0]
        return attribute_batch(model, gray, goal, lower, points=1).slopes


@dataclasses.dataclass(frozen=True)
class Circuit(drawing.Page):
    """Units of a layer and the channels below that matter most to them.

    Attributes
    ----------
    lower, upper
        The names of the layers.
    units
        The units of the upper layer.
    channels
        The channels of the lower layer, strongest first.
    weights
        (units, channels, h, w): the expanded weights, cropped to where they are not zero.
    strengths
        (units, channels): the sum of each map; positive excites.
    rendered
        A picture of each unit, then of each channel.
    """

    lower: str
    upper: str
    units: list[int]
    channels: list[int]
    weights: Tensor
    strengths: Tensor
    rendered: Result

    def sheet(self) -> Image.Image:
        """Draw the units above, the channels below, and an arrow for each strong weight between.

        Red excites and blue inhibits; the width is the strength, and the maps say from where.
        """
        columns = max(len(self.channels), len(self.units))
        width = columns * (_SIDE + _GAP) + _GAP
        head = drawing.text(
            f"{self.upper} from {self.lower}: red excites, blue inhibits. The maps are the weights "
            "around the unit's place.",
            width,
        )
        top = head.height + _GAP
        bottom = top + _SIDE + 30 + _HEIGHT
        maps = bottom + _SIDE + 30
        page = Image.new("RGB", (width, maps + len(self.units) * (_MAP + 8) + _GAP), "white")
        page.paste(head, (_GAP, 8))
        above = self._centres(len(self.units), width)
        below = self._centres(len(self.channels), width)
        self._arrows(ImageDraw.Draw(page), above, below, top + _SIDE + 28, bottom)
        names = [f"{self.upper}:{u}" for u in self.units] + [f"{c}" for c in self.channels]
        centres = [(x, top) for x in above] + [(x, bottom) for x in below]
        for picture, name, (x, y) in zip(self.rendered.images, names, centres, strict=True):
            shown = drawing.captioned(drawing.tile(picture, _SIDE), name)
            page.paste(shown, (round(x - _SIDE / 2), y))
        largest = self.weights.abs().amax()
        for i in range(len(self.units)):
            for j, x in enumerate(below):
                weights = self._picture(self.weights[i, j] / largest)
                page.paste(weights, (round(x - _MAP / 2), maps + i * (_MAP + 8)))
        return page

    @staticmethod
    def _centres(count: int, width: int) -> list[float]:
        return [(i + 0.5) * (width - _GAP) / count + _GAP / 2 for i in range(count)]

    def _arrows(
        self,
        draw: ImageDraw.ImageDraw,
        above: list[float],
        below: list[float],
        top: int,
        bottom: int,
    ) -> None:
        sizes = self.weights.abs().sum((2, 3))
        order = sizes.flatten().argsort().tolist()  # the strongest on top
        for index in order:
            i, j = divmod(index, len(self.channels))
            share = float(sizes[i, j] / sizes.max())
            if share < 0.15:
                continue
            shade = _EXCITES if self.strengths[i, j] > 0 else _INHIBITS
            end = (above[i], top + 12)
            draw.line([(below[j], bottom - 4), end], fill=shade, width=max(1, round(9 * share)))
            size = 5 + 6 * share
            x, y = end
            draw.polygon([(x, y - 12), (x - size, y + 4), (x + size, y + 4)], fill=shade)

    @staticmethod
    def _picture(weights: Tensor) -> Image.Image:
        """Draw a map in [-1, 1]: white is zero."""
        shades = torch.tensor([ImageColor.getrgb(c) for c in (_EXCITES, _INHIBITS)]) / 255
        colour = torch.where(
            (weights > 0)[None], shades[0][:, None, None], shades[1][:, None, None]
        )
        image = torch.ones(3, 1, 1).lerp(colour, weights.abs().sqrt()[None])
        small = sheets.to_pil(image).resize((_MAP - 2, _MAP - 2), Image.Resampling.NEAREST)
        return drawing.framed(small, "#999999", 1)


@takes(Settings)
def circuit(
    model: Model | str,
    lower: str,
    upper: str,
    units: Sequence[int],
    *,
    k: int = 6,
    settings: Settings | None = None,
    seed: Seed = 0,
    device: str | None = None,
    progress: bool | None = None,
    **options: Unpack[SettingsKeywords],
) -> Circuit:
    """Return the ``k`` channels of ``lower`` with the strongest weights to ``units`` of ``upper``.

    Strong is a large norm of the map of :func:`expanded_weights`. The weights say what the layers
    would do if nothing between was ever cut off by a ReLU; :func:`building_blocks` with a unit as
    its objective says what they do on a photograph.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`, or the name of a network.
    lower, upper
        Two layers with maps, the first before the second.
    units
        Channels of the upper layer.
    k
        How many channels of the lower layer.
    settings
        How the pictures are optimized; keyword arguments override its fields.
    seed, device, progress
        As in :func:`featviz.render`.

    Raises
    ------
    FeatvizError
        As :func:`expanded_weights`, or if all weights are zero.
    """
    model = as_model(model, "circuit")
    positive_int("k", k)
    weights = expanded_weights(model, lower, upper, units)
    if weights.ndim != 4:
        raise FeatvizError(f"a circuit is drawn of maps (K, H, W), not {tuple(weights.shape[1:])}")
    if not weights.any():
        raise FeatvizError(f"all weights from {lower!r} to these units of {upper!r} are zero")
    norms = weights.flatten(2).norm(dim=2)
    # Each unit counts alike, whatever its scale.
    relative = (norms / norms.amax(1, keepdim=True).clamp_min(1e-12)).amax(0)
    channels = relative.topk(min(k, len(relative))).indices.tolist()
    chosen = _cropped(weights[:, channels])
    goals = [*(channel(upper, u) for u in units), *(channel(lower, c) for c in channels)]
    rendered = render(
        model,
        goals,
        settings=settings,
        seed=seed,
        device=device,
        progress=progress,
        **options,
    )
    strengths = chosen.sum((2, 3))
    return Circuit(lower, upper, list(units), channels, chosen, strengths, rendered)


def _cropped(weights: Tensor) -> Tensor:
    """Return maps (…, h, w) without the rows and columns in which all are (nearly) zero."""
    size = weights.abs().flatten(0, 1).amax(0)
    used = size > _SUPPORT * size.max()
    rows, columns = (used.any(axis).nonzero().flatten() for axis in (1, 0))
    return weights[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
