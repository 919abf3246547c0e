"""Which images an atlas has: an enumeration of layers, units, signs and seeds."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import itertools
import json
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch

from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.objectives import Objective, channel
from featviz.objectives import objective as as_objective
from featviz.objectives.parsing import format_field
from featviz.optim.settings import Plan
from featviz.rendering.held_out import APART

#: What of a layer's units: all, a text such as ``0:32`` or ``3,7,0:64:4``, or their numbers.
Units: TypeAlias = str | Iterable[int] | None
#: What an image shows, of a layer and a unit: a text with ``{layer}`` and ``{unit}``, a function.
Template: TypeAlias = str | Callable[[str, int], Objective | str] | None


@dataclasses.dataclass(frozen=True)
class Picture:
    """One image of the plan; ``objective`` is its canonical text, with the sign."""

    objective: str
    layer: str
    unit: int
    sign: str
    seed: int


def enumerate_pictures(
    model: Model,
    layers: Sequence[str] | str,
    *,
    units: Units = None,
    signs: str | Sequence[str] = "+-",
    seeds: int | Iterable[int] = (0,),
    objective: Template = None,
) -> list[Picture]:
    """Return the images of an atlas: layer by layer, unit by unit.

    Raises
    ------
    FeatvizError
        If a layer is not there, a unit not in it, or a sign is neither + nor -.
    """
    wanted = list(dict.fromkeys(_given("signs", signs)))
    if not wanted or set(wanted) - {"+", "-"}:
        raise FeatvizError(f"signs are +, - or +-, not {''.join(map(str, wanted))!r}")
    numbers = _wholes("seeds", seeds)
    if not numbers or not all(-(2**63) <= n < 2**63 - APART for n in numbers):
        raise FeatvizError("seeds are one whole number or more, of at most 62 bits")
    chosen = units if units is None or isinstance(units, str) else _wholes("units", units)
    make = _maker(objective)
    found: list[Picture] = []
    names = [layers] if isinstance(layers, str) else list(_given("layers", layers))
    for layer in find_layers(model, names):
        for unit in _units(chosen, layer, model.layer(layer).units):
            goal = as_objective(make(layer, unit))
            if goal.relational:
                raise FeatvizError(f"an image of an atlas stands alone, which {goal} does not")
            texts = {"+": str(goal), "-": str(-goal)}
            found += [
                Picture(texts[sign], layer, unit, sign, seed)
                for sign, seed in itertools.product(wanted, numbers)
            ]
    if not found:
        raise FeatvizError(f"no units {units!r} in {', '.join(names)}")
    found = list(dict.fromkeys(found))
    seen: dict[tuple[str, int], Picture] = {}
    for picture in found:
        other = seen.setdefault((picture.objective, picture.seed), picture)
        if other != picture:
            raise FeatvizError(
                f"unit {other.unit} of {other.layer!r} and unit {picture.unit} of "
                f"{picture.layer!r} are both {picture.objective}: name {{layer}} and {{unit}} in it"
            )
    return found


def _given(name: str, value: Any) -> Any:
    if not isinstance(value, Iterable):
        raise FeatvizError(f"{name} must be a text or a list, not {value!r}")
    return value


def _wholes(name: str, value: Any) -> list[int]:
    """Return whole numbers, of one or of several, numpy's too."""
    try:
        return [operator.index(v) for v in (value if isinstance(value, Iterable) else [value])]
    except TypeError:
        raise FeatvizError(f"{name} must be whole numbers, not {value!r}") from None


def find_layers(model: Model, layers: Sequence[str]) -> list[str]:
    """Return the layers with these names, or that match these patterns, each once.

    Raises
    ------
    LayerError
        For a name that is not there and a pattern that matches nothing.
    """
    names = [info.name for info in model.layers()]
    found: list[str] = []
    for layer in layers:
        if layer in names or not any(mark in layer for mark in "*?"):
            found.append(model.layer(layer).name)
            continue
        matches = [name for name in names if fnmatch.fnmatchcase(name, layer)]
        if not matches:
            raise FeatvizError(f"no layer matches {layer!r}: featviz layers MODEL lists them")
        found += matches
    if not found:
        raise FeatvizError("give at least one layer: featviz layers MODEL lists them")
    return list(dict.fromkeys(found))


def read_units(text: str, count: int) -> list[int]:
    """Read ``0:32``, ``3,7`` or ``0:64:4,100`` of ``count`` units; slices are Python's."""
    found: list[int] = []
    for word in text.split(","):
        try:
            if ":" in word:
                first, *rest = (int(part) if part.strip() else None for part in word.split(":"))
                found += range(count)[slice(first, *rest)]
            else:
                found.append(int(word))
        except (TypeError, ValueError):  # five numbers, a step of 0, a word
            raise FeatvizError(f"units {text!r}: give them as 0:32, 3,7 or 0:64:4") from None
    return found


def _units(units: str | list[int] | None, layer: str, count: int) -> list[int]:
    if units is None:
        return list(range(count))
    found = read_units(units, count) if isinstance(units, str) else units
    for unit in found:
        if not 0 <= unit < count:
            raise FeatvizError(f"no unit {unit} in layer {layer!r}: it has 0 to {count - 1}")
    return list(dict.fromkeys(found))


def _maker(template: Template) -> Callable[[str, int], Objective | str]:
    if template is None:
        return channel
    if not isinstance(template, str):
        return template
    if "{unit}" not in template:
        raise FeatvizError(f"objective {template!r} has no {{unit}}: channel:{{layer}}:{{unit}}")
    text = template
    return lambda layer, unit: text.replace("{layer}", format_field(layer)).replace(
        "{unit}", str(unit)
    )


def goals(pictures: Iterable[Picture]) -> dict[tuple[str, int], Objective]:
    """Return the objective of each layer and unit, without the sign."""
    found: dict[tuple[str, int], Objective] = {}
    for picture in pictures:
        place = picture.layer, picture.unit
        if place not in found:
            goal = as_objective(picture.objective)
            found[place] = goal if picture.sign == "+" else -goal
    return found


def batches(pictures: Sequence[Picture], size: int) -> list[tuple[Picture, ...]]:
    """Cut a plan into batches of one layer each, which are always cut at the same places."""
    return [
        tuple(chunk)
        for _, group in itertools.groupby(pictures, key=lambda p: p.layer)
        for whole in [list(group)]
        for start in range(0, len(whole), size)
        for chunk in [whole[start : start + size]]
    ]


def describe(
    model: Model, plan: Plan, template: Template, encoding: str
) -> tuple[str, dict[str, Any]]:
    """Return the hash of what makes an image, and what is hashed.

    Raises
    ------
    FeatvizError
        If some of it has no text, so that another run could not tell whether it is the same.
    """
    settings: dict[str, Any] = dict(plan.record)
    unsaid = [k for k in ("param", "transforms") if settings[k] is None]
    if unsaid:
        raise FeatvizError(f"an atlas takes {unsaid[0]} that can be written down as text")
    if template is None or isinstance(template, str):
        settings["objective"] = template or "channel:{layer}:{unit}"
    else:
        settings["objective"] = getattr(template, "__qualname__", type(template).__qualname__)
    settings |= {"encoding": encoding, "model_hash": model_hash(model)}
    text = json.dumps(settings, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest(), settings


def model_hash(model: Model) -> str:
    """Return a hash of the network: its modules, layers and weights, and what its images are.

    Of a plain function it knows the name and the shapes of what it returns.
    """
    digest = hashlib.blake2b(digest_size=16)
    function = getattr(model.net, "function", None)
    expects = (
        re.sub(r" at 0x[0-9a-f]+", "", repr(model.net)),
        getattr(function, "__qualname__", None),
        [(info.name, info.shape) for info in model.layers()],
        (model.mean, model.std, model.range, model.size),
    )
    digest.update(repr(expects).encode())
    for name, value in sorted(model.net.state_dict().items()):
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            plain = value.detach().cpu().contiguous().flatten()
            digest.update(plain.view(torch.uint8).numpy().tobytes())
        else:  # what a module's get_extra_state returned
            digest.update(repr(value).encode())
    return digest.hexdigest()
