"""The plan of an atlas: the images of its layers, units, signs and seeds."""

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

from featviz.errors import FeatvizError, shorten
from featviz.networks.model import Model
from featviz.objectives import Objective, channel
from featviz.objectives import objective as as_objective
from featviz.objectives.parsing import format_field
from featviz.optim.resolved import Plan
from featviz.rendering.held_out import SEED_OFFSET

#: Units of a layer: None for all, a text such as ``0:32`` or ``3,7,0:64:4``, or their indices.
Units: TypeAlias = str | Iterable[int] | None
#: The objective of a unit: a text with ``{layer}`` and ``{unit}``, or a function of both.
Template: TypeAlias = str | Callable[[str, int], Objective | str] | None


@dataclasses.dataclass(frozen=True)
class PlannedImage:
    """One image of the plan; ``objective`` is its canonical text, including the sign."""

    objective: str
    layer: str
    unit: int
    sign: str
    seed: int


def enumerate_images(
    model: Model,
    layers: Sequence[str] | str,
    *,
    units: Units = None,
    signs: str | Sequence[str] = "+-",
    seeds: int | Iterable[int] = (0,),
    objective: Template = None,
) -> list[PlannedImage]:
    """Return the images of an atlas, ordered by layer and unit.

    Raises
    ------
    FeatvizError
        If a layer or unit does not exist, or a sign is neither + nor -.
    """
    unique_signs = list(dict.fromkeys(_iterable("signs", signs)))
    if not unique_signs or set(unique_signs) - {"+", "-"}:
        raise FeatvizError(f"signs must be +, - or +-, not {''.join(map(str, unique_signs))!r}")
    seed_list = _integers("seeds", seeds)
    if not seed_list or not all(-(2**63) <= n < 2**63 - SEED_OFFSET for n in seed_list):
        raise FeatvizError("seeds must be integers of at most 62 bits, at least one")
    unit_spec = units if units is None or isinstance(units, str) else _integers("units", units)
    make_objective = _objective_factory(objective)
    planned: list[PlannedImage] = []
    layer_names = [layers] if isinstance(layers, str) else list(_iterable("layers", layers))
    for layer in find_layers(model, layer_names):
        for unit in _units(unit_spec, layer, model.layer(layer).units):
            goal = as_objective(make_objective(layer, unit))
            if goal.relational:
                raise FeatvizError(f"an atlas needs objectives of single images, not {goal}")
            texts = {"+": str(goal), "-": str(-goal)}
            planned += [
                PlannedImage(texts[sign], layer, unit, sign, seed)
                for sign, seed in itertools.product(unique_signs, seed_list)
            ]
    if not planned:
        raise FeatvizError(f"no units {units!r} in {', '.join(layer_names)}")
    planned = list(dict.fromkeys(planned))
    by_key: dict[tuple[str, int], PlannedImage] = {}
    for image in planned:
        first = by_key.setdefault((image.objective, image.seed), image)
        if first != image:
            raise FeatvizError(
                f"unit {first.unit} of {first.layer!r} and unit {image.unit} of "
                f"{image.layer!r} are both {image.objective}: use {{layer}} and {{unit}} in it"
            )
    return planned


def _iterable(name: str, value: Any) -> Any:
    if not isinstance(value, Iterable):
        raise FeatvizError(f"{name} must be a text or a list, not {value!r}")
    return value


def _integers(name: str, value: Any) -> list[int]:
    """Return one or several integers, including NumPy's, as a list."""
    if isinstance(value, (str, bytes)):
        raise FeatvizError(f"{name} must be integers, not {value!r}")
    try:
        return [operator.index(v) for v in (value if isinstance(value, Iterable) else [value])]
    except TypeError:
        raise FeatvizError(f"{name} must be integers, not {value!r}") from None


def find_layers(model: Model, layers: Sequence[str]) -> list[str]:
    """Return the layers with these names or matching these patterns, without duplicates.

    Raises
    ------
    LayerError
        For a name that does not exist and a pattern without a match.
    """
    names = [info.name for info in model.layers()]
    result: list[str] = []
    for layer in layers:
        if not isinstance(layer, str):
            raise FeatvizError(f"layers must be names, not {shorten(repr(layer))}")
        if layer in names or not any(mark in layer for mark in "*?"):
            result.append(model.layer(layer).name)
            continue
        matches = [name for name in names if fnmatch.fnmatchcase(name, layer)]
        if not matches:
            raise FeatvizError(f"no layer matches {layer!r}: featviz layers MODEL lists them")
        result += matches
    if not result:
        raise FeatvizError("give at least one layer: featviz layers MODEL lists them")
    return list(dict.fromkeys(result))


def read_units(text: str, count: int) -> list[int]:
    """Parse ``0:32``, ``3,7`` or ``0:64:4,100``, with Python slices of ``count`` units."""
    units: list[int] = []
    for word in text.split(","):
        try:
            if ":" in word:
                first, *others = (int(part) if part.strip() else None for part in word.split(":"))
                units += range(count)[slice(first, *others)]
            else:
                units.append(int(word))
        except (TypeError, ValueError):  # too many numbers, a step of 0, a word
            raise FeatvizError(
                f"invalid units {text!r}: give them as 0:32, 3,7 or 0:64:4"
            ) from None
    return units


def _units(units: str | list[int] | None, layer: str, count: int) -> list[int]:
    if units is None:
        return list(range(count))
    indices = read_units(units, count) if isinstance(units, str) else units
    for unit in indices:
        if not 0 <= unit < count:
            raise FeatvizError(f"no unit {unit} in layer {layer!r}: it has 0 to {count - 1}")
    return list(dict.fromkeys(indices))


def _objective_factory(template: Template) -> Callable[[str, int], Objective | str]:
    if template is None:
        return channel
    if not isinstance(template, str):
        if not callable(template):
            raise FeatvizError("objective must be a text with {unit} or a function")
        return template
    if "{unit}" not in template:
        raise FeatvizError(f"objective {template!r} has no {{unit}}: channel:{{layer}}:{{unit}}")
    text = template
    return lambda layer, unit: text.replace("{layer}", format_field(layer)).replace(
        "{unit}", str(unit)
    )


def goals(images: Iterable[PlannedImage]) -> dict[tuple[str, int], Objective]:
    """Return the objective of each (layer, unit), without the sign."""
    by_unit: dict[tuple[str, int], Objective] = {}
    for image in images:
        key = image.layer, image.unit
        if key not in by_unit:
            goal = as_objective(image.objective)
            by_unit[key] = goal if image.sign == "+" else -goal
    return by_unit


def batches(images: Sequence[PlannedImage], size: int) -> list[tuple[PlannedImage, ...]]:
    """Split a plan into batches of one layer each, always at the same boundaries."""
    return [
        tuple(chunk)
        for _, group in itertools.groupby(images, key=lambda p: p.layer)
        for of_layer in [list(group)]
        for start in range(0, len(of_layer), size)
        for chunk in [of_layer[start : start + size]]
    ]


def describe(
    model: Model, plan: Plan, template: Template, encoding: str
) -> tuple[str, dict[str, Any]]:
    """Return the hash of all settings that determine an image, and these settings.

    Raises
    ------
    FeatvizError
        If a setting has no text form, so that another run could not compare it.
    """
    settings: dict[str, Any] = dict(plan.record)
    without_text = [k for k in ("param", "transforms") if settings[k] is None]
    if without_text:
        raise FeatvizError(f"an atlas needs {without_text[0]} with a text form")
    if template is None or isinstance(template, str):
        settings["objective"] = template or "channel:{layer}:{unit}"
    else:
        settings["objective"] = getattr(template, "__qualname__", type(template).__qualname__)
    settings |= {"encoding": encoding, "model_hash": model_hash(model)}
    # Atlases from before there was a focus are continued with ``focus=0``.
    text = json.dumps({k: v for k, v in settings.items() if k != "focus" or v}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest(), settings


def model_hash(model: Model) -> str:
    """Return a hash of the network: its modules, layers, weights and preprocessing.

    For a plain function, the hash covers its name and the shapes of its outputs.
    """
    digest = hashlib.blake2b(digest_size=16)
    function = getattr(model.net, "function", None)
    description = (
        re.sub(r" at 0x[0-9a-f]+", "", repr(model.net)),
        getattr(function, "__qualname__", None),
        getattr(model.call, "__qualname__", None),
        [(info.name, info.shape) for info in model.layers()],
        (model.mean, model.std, model.range, model.size),
    )
    digest.update(repr(description).encode())
    for name, value in sorted(model.net.state_dict().items()):
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            values = value.detach().cpu().contiguous().flatten()
            digest.update(values.view(torch.uint8).numpy().tobytes())
        else:  # returned by a module's get_extra_state
            digest.update(repr(value).encode())
    return digest.hexdigest()
