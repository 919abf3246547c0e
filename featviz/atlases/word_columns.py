"""The ``words`` columns: what words were found for the units of an atlas, for its search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from featviz.atlases.metadata import check_format
from featviz.atlases.plan import model_hash
from featviz.atlases.store import Store
from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.types import Tensor


class WordColumns:
    """The columns ``words`` and ``word_scores`` in the table of a layer's units.

    Raises
    ------
    FeatvizError
        If there is no atlas, it is of another network, or it has no table of these units.
    """

    def __init__(
        self, url: str | Path, model: Model, layer: str, units: Sequence[int] | None
    ) -> None:
        self.store, self.layer = Store(url), layer
        about = self.store.about
        check_format(self.store)
        if not about:
            raise FeatvizError(f"no atlas in {str(url)!r}: create one with featviz atlas")
        if about.get("model_hash") != model_hash(model):
            raise FeatvizError(f"{str(url)!r} is the atlas of another network: use its own")
        stored = {row["unit"] for row in self.store.get("units", layer).to_pylist()}
        if not stored:
            raise FeatvizError(
                f"{str(url)!r} has no units of layer {layer!r}: add them with featviz atlas"
            )
        missing = sorted(set(units or ()) - stored)
        if missing:
            raise FeatvizError(f"{str(url)!r} has no unit {missing[0]} of {layer!r}: leave it out")

    def write(self, units: Sequence[int], words: Sequence[Sequence[str]], scores: Tensor) -> None:
        """Store the words (units of lists, best first) and scores (units, k); others keep theirs.

        Units that the atlas does not have are left out.
        """
        found = dict(zip(units, zip(words, scores.tolist(), strict=True), strict=True))
        rows = self.store.get("units", self.layer).to_pylist()
        for row in rows:
            if row["unit"] in found:
                names, values = found[row["unit"]]
                row["words"], row["word_scores"] = list(names), values
        self.store.put("units", self.layer, rows)
