"""The building blocks of interpretability: which channels speak for an objective, shown and placed.

[Olah2018]_ joins feature visualization (what a channel looks for) with attribution (how much it
matters here): a photograph becomes a few pictures, sized by their share of the evidence and placed
where they act.
"""

from __future__ import annotations

import dataclasses

from PIL import Image, ImageDraw

from featviz.io.inputs import ImageLike
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.optim.result import Result
from featviz.optim.settings import Settings
from featviz.optim.settings_keywords import SettingsKeywords
from featviz.options import takes
from featviz.recipes import drawing
from featviz.recipes.contributions import LayerAttribution, Part, layer_attribution
from featviz.rendering.api import render
from featviz.types import Seed, Unpack
from featviz.validation import positive_int

#: The side of the photograph on the page, and the space around it for pictures, in pixels.
_SIDE, _AROUND = 440, 36
#: The sides of the largest picture and of the smallest, and of the photographs in the row below.
_LARGEST, _SMALLEST, _SMALL = 112, 40, 150


@dataclasses.dataclass(frozen=True)
class BuildingBlocks(drawing.Page):
    """The strongest channels behind an objective, each with its picture.

    Attributes
    ----------
    attribution
        The contributions of all channels and positions.
    parts
        The strongest sides of channels, strongest first, with their shares and maps.
    rendered
        A picture of each part: what it looks for.
    """

    attribution: LayerAttribution
    parts: list[Part]
    rendered: Result

    def sheet(self) -> Image.Image:
        """Draw the photograph, the pictures placed on it, and below them where each acts."""
        photo = Image.new("RGB", (_SIDE, _SIDE + 2 * _AROUND), "white")
        photo.paste(drawing.tile(self.attribution.image, _SIDE), (0, _AROUND))
        pictures = drawing.row([photo, self._placed()], gap=0)
        legend = drawing.row([self._legend(i) for i in range(len(self.parts))], align="bottom")
        text = drawing.text(self._text(), max(pictures.width, legend.width))
        return drawing.column([text, pictures, legend], gap=10, margin=16)

    def _text(self) -> str:
        goal, value = self.attribution.objective, self.attribution.value
        shown = sum(part.share for part in self.parts)
        return (
            f"{goal} = {value:.3g}. {len(self.parts)} channels of {self.attribution.layer} carry "
            f"{shown:.0%} of what speaks for it. The area of a picture is its share; it is placed "
            "where it acts most."
        )

    def _placed(self) -> Image.Image:
        sides = self._sides(_LARGEST)
        whole = _SIDE + 2 * _AROUND
        page = Image.new("RGB", (whole, whole), "white")
        maps = self.attribution.positions.clamp_min(0)[None]
        faint = drawing.tint(self.attribution.image, maps * 0, ["#000000"])
        page.paste(drawing.tile(faint, _SIDE), (_AROUND, _AROUND))
        peaks = [drawing.peak(part.map) for part in self.parts]
        anchors = [(_AROUND + x * _SIDE, _AROUND + y * _SIDE) for x, y in peaks]
        places = drawing.apart(anchors, [side + 8 for side in sides], (whole, whole))
        draw = ImageDraw.Draw(page)
        for i, (x, y) in enumerate(places):
            draw.line([(x, y), anchors[i]], fill=drawing.colour(i), width=3)
        for i, (x, y) in enumerate(places):
            picture = drawing.tile(self.rendered.images[i], sides[i])
            picture = drawing.framed(picture, drawing.colour(i))
            page.paste(picture, (round(x - picture.width / 2), round(y - picture.height / 2)))
        for i, (x, y) in enumerate(anchors):
            if any(self._covers(places[j], sides[j], (x, y)) for j in range(len(places))):
                continue  # the picture itself is where it acts
            box = (x - 6, y - 6, x + 6, y + 6)
            draw.ellipse(box, fill=drawing.colour(i), outline="white", width=2)
        return page

    @staticmethod
    def _covers(place: tuple[float, float], side: int, point: tuple[float, float]) -> bool:
        return all(abs(a - b) < side / 2 for a, b in zip(place, point, strict=True))

    def _sides(self, largest: int) -> list[int]:
        """Return the side of each picture: its area is the part's share."""
        top = self.parts[0].share
        return [max(_SMALLEST, round(largest * (part.share / top) ** 0.5)) for part in self.parts]

    def _legend(self, index: int) -> Image.Image:
        part, shade = self.parts[index], drawing.colour(index)
        heat = part.map[None] / part.map.max()
        where = drawing.tile(drawing.tint(self.attribution.image, heat, [shade]), _SMALL)
        picture = drawing.framed(drawing.tile(self.rendered.images[index], _SMALL), shade, 3)
        sign = "" if part.sign > 0 else "-"
        captioned = drawing.captioned(picture, f"{sign}channel {part.channel}: {part.share:.1%}")
        return drawing.column([drawing.framed(where, shade, 3), captioned], 6)


@takes(Settings)
def building_blocks(
    model: Model | str,
    image: ImageLike,
    objective: Objective | str,
    layer: str,
    *,
    k: int = 6,
    baseline: ImageLike | None = None,
    settings: Settings | None = None,
    seed: Seed = 0,
    device: str | None = None,
    progress: bool | None = None,
    **options: Unpack[SettingsKeywords],
) -> BuildingBlocks:
    """Return the ``k`` channels of a layer that contribute most to ``objective``, with pictures.

    ``fv.recipes.building_blocks(model, "cat.png", 'class:"Egyptian cat"', "_blocks.10")``. Each
    channel has two sides: where it is above the baseline and where it is below, as a layer without
    a ReLU at its end allows. A side that contributes by being low is shown by what lowers the
    channel. [Olah2018]_.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`, or the name of a network.
    image
        One photograph.
    objective
        Any objective of a later layer: a class logit, or a unit.
    layer
        The layer whose channels are shown.
    k
        How many, at most.
    baseline
        As in :func:`layer_attribution`.
    settings
        How the pictures are optimized; keyword arguments override its fields.
    seed, device, progress
        As in :func:`featviz.render`.

    Raises
    ------
    FeatvizError
        As :func:`layer_attribution`, or if nothing in the layer speaks for the objective.
    """
    model = as_model(model, "building_blocks")
    positive_int("k", k)
    attribution = layer_attribution(model, image, objective, layer, baseline=baseline)
    parts = attribution.strongest(k)
    rendered = render(
        model,
        [part.objective for part in parts],
        settings=settings,
        seed=seed,
        device=device,
        progress=progress,
        **options,
    )
    return BuildingBlocks(attribution, parts, rendered)
