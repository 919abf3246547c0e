"""What networks that had no part in an image see in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from featviz.checks.verdicts import Criterion, judged, unmeasured
from featviz.errors import FeatvizError
from featviz.networks import zoo
from featviz.networks.model import Model
from featviz.networks.zoo import efficientnet
from featviz.objectives import Objective
from featviz.objectives.base import terms_of
from featviz.objectives.classes import ClassLogit, LogProbability, Margin, Probability
from featviz.optim.collecting import collect
from featviz.resample import resize
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class Panel:
    """The networks that are asked, by name, and of the others why they are not."""

    judges: dict[str, Model]
    excluded: dict[str, str]

    @property
    def why(self) -> str:
        """Why nobody is asked."""
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.excluded.items())
        return reasons or "no judges: name networks with the same classes, judges=[…] or --judges"


def panel(model: Model, names: Sequence[str | Model] | str | Model | None) -> Panel:
    """Return the judges of a model; of an embedded network by default its two siblings.

    Only networks with the same class names can be compared; the others are ``excluded``, as are
    siblings that are not installed.

    Raises
    ------
    FeatvizError
        If a network that was named cannot be loaded.
    """
    siblings = names is None
    if isinstance(names, (str, Model)):
        names = [names]
    if names is None:
        family = efficientnet.NAMES if model.name in efficientnet.NAMES else ()
        names = [name for name in family if name != model.name]
    judges: dict[str, Model] = {}
    excluded: dict[str, str] = {}
    for given in names:
        name = str((given.name or type(given.net).__name__) if isinstance(given, Model) else given)
        if siblings and not efficientnet.installed(name):
            excluded[name] = f"not installed ({efficientnet.install(name)})"
            continue
        judge = given if isinstance(given, Model) else zoo.load(given)
        reason = _incomparable(model, judge)
        twins = sum(known.partition("#")[0] == name for known in (*judges, *excluded))
        name = f"{name}#{twins + 1}" if twins else name
        if reason:
            excluded[name] = reason
        else:
            judges[name] = judge.on(model.device)
    return Panel(judges, excluded)


def _incomparable(model: Model, judge: Model) -> str | None:
    if model.classes is None:
        return "the network has no class names to compare with"
    if judge.classes is None:
        return "it has no class names"
    if judge.net is model.net or (judge.name is not None and judge.name == model.name):
        return "it is the network itself"
    for one in (model, judge):
        info = one.layer(one.logits)
        if info.positions or info.units != len(one.classes or ()):
            return f"{info.units} logits and {len(one.classes or ())} class names do not fit"
    if [c.casefold() for c in judge.classes] != [c.casefold() for c in model.classes]:
        return "its class names are others"
    if judge.channels != model.channels or len(judge.size) != len(model.size):
        return "it takes other images"
    return None


def probabilities(model: Model, pictures: Tensor) -> Tensor:
    """Return the probabilities (B, classes) of images, resized to the network's own size.

    Raises
    ------
    FeatvizError
        If the network has no logits.
    """
    info = model.layer(model.logits)
    if info.positions:
        raise FeatvizError(f"layer {info.name!r} holds a map, not the logits of classes")
    shown = resize(pictures, model.size, antialias=True).clamp(0, 1)
    return collect(model, shown, [model.logits], lambda _, a: a.float().softmax(1))[model.logits]


def wanted_class(model: Model, goal: Objective) -> int | None:
    """Return the class that an objective raises; None where it raises none, or several."""
    kinds = (ClassLogit, LogProbability, Probability, Margin)
    named = [part for c, part in terms_of(goal) if c > 0 and isinstance(part, kinds)]
    if len(named) != 1 or named[0].layer not in ("", model.logits):
        return None
    target = named[0].target
    return model.class_index(target) if isinstance(target, str) else target


def opinion(
    model: Model, panel: Panel, wanted: int | None, own: Tensor, others: dict[str, Tensor]
) -> Criterion:
    """Judge one image by the probabilities (classes,) that the networks give it.

    Of a class, the value is the share of judges whose first choice it is. Of any other unit it
    is the share of those that have the network's own first choice among their first five.
    """
    if not others:
        return unmeasured("judges", panel.why)
    assert model.classes is not None
    sought = int(own.argmax()) if wanted is None else wanted
    rows, first, five = {}, 0, 0
    for name, found in others.items():
        top = found.topk(min(5, len(found))).indices.tolist()
        first, five = first + (top[0] == sought), five + (sought in top)
        rows[name] = {
            "top1": model.classes[top[0]],
            "top1_probability": float(found[top[0]]),
            "agrees": top[0] == sought,
            "in_top5": sought in top,
            "probability": float(found[sought]),
        }
    figures = {
        "class": model.classes[sought],
        "wanted": wanted is not None,
        "own_top1": model.classes[int(own.argmax())],
        "own_probability": float(own[sought]),
        "judges": rows,
        "excluded": panel.excluded,
    }
    count = len(others)
    if wanted is not None:
        mean = sum(row["probability"] for row in rows.values()) / count
        why = f"{first} of {count} judges see {model.classes[sought]!r} first, mean p {mean:.2f}"
        return judged("judges", first / count, why, **figures)
    why = (
        f"{five} of {count} judges have the network's own {model.classes[sought]!r} in their top 5"
    )
    return judged("judges", five / count, why, **figures)
