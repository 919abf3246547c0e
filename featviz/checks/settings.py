"""The options of :func:`featviz.check` besides those of rendering."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from featviz.networks.model import Model
from featviz.optim.settings_keywords import SettingsKeywords
from featviz.options import Options, documented, option


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckSettings(Options):
    """What :func:`featviz.check` measures."""

    seeds: int = option(
        3,
        "Images rendered for each objective, with seed, seed + 1 and so on.",
        cli=int,
        bounds=(1, 1000),
    )
    judges: Sequence[str | Model] | None = option(
        None,
        "Networks with the same class names, by name or as models. Default: the siblings of an "
        "embedded network.",
    )
    randomize: bool = option(
        True,
        "Whether to also render on a copy with permuted weights, which doubles the memory of the "
        "weights.",
    )
    k: int = option(
        9, "Number of top-activating dataset images to compare with.", cli=int, bounds=(1, 10_000)
    )


class CheckKeywords(SettingsKeywords, total=False):
    """The fields of :class:`CheckSettings`, and of :class:`featviz.Settings`, as keywords."""

    seeds: int
    judges: Sequence[str | Model] | None
    randomize: bool
    k: int
