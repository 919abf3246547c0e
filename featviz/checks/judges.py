"""Judges: what networks that had no part in making an image see in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from featviz.checks.verdicts import Criterion, judge, not_measured
from featviz.errors import FeatvizError, shorten
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
    """The networks that judge, by name, and why other networks are excluded."""

    judges: dict[str, Model]
    excluded: dict[str, str]

    @property
    def why(self) -> str:
        """Why there are no judges."""
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.excluded.items())
        return reasons or "no judges: name networks with the same classes, judges=[…] or --judges"


def panel(model: Model, names: Sequence[str | Model] | str | Model | None) -> Panel:
    """Return the judges of a model; by default, the two siblings of an embedded network.

    Only networks with the same class names can be compared; others are ``excluded``, as are
    siblings that are not installed.

    Raises
    ------
    FeatvizError
        If a named network cannot be loaded.
    """
    by_default = names is None
    if isinstance(names, (str, Model)):
        names = [names]
    elif names is not None and not (
        isinstance(names, Sequence) and all(isinstance(name, (str, Model)) for name in names)
    ):
        raise FeatvizError(
            f"judges must be networks or their names, not {shorten(repr(names), 60)}"
        )
    if names is None:
        family = efficientnet.NAMES if model.name in efficientnet.NAMES else ()
        names = [name for name in family if name != model.name]
    judges: dict[str, Model] = {}
    excluded: dict[str, str] = {}
    for entry in names:
        name = str((entry.name or type(entry.net).__name__) if isinstance(entry, Model) else entry)
        if by_default and not efficientnet.installed(name):
            excluded[name] = f"not installed ({efficientnet.install(name)})"
            continue
        network = entry if isinstance(entry, Model) else zoo.load(entry)
        reason = _incomparable(model, network)
        duplicates = sum(other.partition("#")[0] == name for other in (*judges, *excluded))
        name = f"{name}#{duplicates + 1}" if duplicates else name
        if reason:
            excluded[name] = reason
        else:
            judges[name] = network.on(model.device)
    return Panel(judges, excluded)


def _incomparable(model: Model, other: Model) -> str | None:
    if model.classes is None:
        return "the network has no class names to compare with"
    if other.classes is None:
        return "it has no class names"
    if other.net is model.net or (other.name is not None and other.name == model.name):
        return "it is the network itself"
    for network in (model, other):
        info = network.layer(network.logits)
        if info.positions or info.units != len(network.classes or ()):
            return f"{info.units} logits and {len(network.classes or ())} class names do not match"
    if [c.casefold() for c in other.classes] != [c.casefold() for c in model.classes]:
        return "its class names differ"
    if other.channels != model.channels or len(other.size) != len(model.size):
        return "it takes images of another shape"
    return None


def probabilities(model: Model, images: Tensor) -> Tensor:
    """Return the class probabilities (B, classes) of images, resized to the network's own size.

    Raises
    ------
    FeatvizError
        If the network has no class logits.
    """
    info = model.layer(model.logits)
    if info.positions:
        raise FeatvizError(f"layer {info.name!r} holds a feature map, not class logits")
    resized = resize(images, model.size, antialias=True).clamp(0, 1)
    return collect(model, resized, [model.logits], lambda _, a: a.float().softmax(1))[model.logits]


def target_class(model: Model, goal: Objective) -> int | None:
    """Return the class that an objective maximizes; None if it maximizes none, or several."""
    class_objectives = (ClassLogit, LogProbability, Probability, Margin)
    terms = [part for c, part in terms_of(goal) if c > 0 and isinstance(part, class_objectives)]
    if len(terms) != 1 or terms[0].layer not in ("", model.logits):
        return None
    target = terms[0].target
    return model.class_index(target) if isinstance(target, str) else target


def judges_criterion(
    model: Model, panel: Panel, target: int | None, own: Tensor, others: dict[str, Tensor]
) -> Criterion:
    """Judge one image by the probabilities (classes,) that the networks assign.

    For an objective of a class, the value is the share of judges that rank it first. For any other
    unit it is the share of judges that have the network's own first choice in their top 5.
    """
    if not others:
        return not_measured("judges", panel.why)
    assert model.classes is not None
    reference = int(own.argmax()) if target is None else target
    by_judge, top1_hits, top5_hits = {}, 0, 0
    for name, probs in others.items():
        top5 = probs.topk(min(5, len(probs))).indices.tolist()
        top1_hits, top5_hits = top1_hits + (top5[0] == reference), top5_hits + (reference in top5)
        by_judge[name] = {
            "top1": model.classes[top5[0]],
            "top1_probability": float(probs[top5[0]]),
            "agrees": top5[0] == reference,
            "in_top5": reference in top5,
            "probability": float(probs[reference]),
        }
    figures = {
        "class": model.classes[reference],
        "wanted": target is not None,
        "own_top1": model.classes[int(own.argmax())],
        "own_probability": float(own[reference]),
        "judges": by_judge,
        "excluded": panel.excluded,
    }
    count = len(others)
    if target is not None:
        mean = sum(row["probability"] for row in by_judge.values()) / count
        why = (
            f"{top1_hits} of {count} judges rank {model.classes[reference]!r} first, "
            f"mean p {mean:.2f}"
        )
        return judge("judges", top1_hits / count, why, **figures)
    why = (
        f"{top5_hits} of {count} judges have the network's own {model.classes[reference]!r} "
        "in their top 5"
    )
    return judge("judges", top5_hits / count, why, **figures)
