"""Does featviz agree with plain forward hooks, on every architecture that its users may load?

    python benchmarks/architectures.py [NAME…] [-o table.md] [--json out.json]

For each network: layers are listed; the unit axis of every layer whose module says how many units
it has (convolutions, linear layers, norms, LSTMs) is compared with what the module is, and the
score of a unit of each with a plain forward hook; a class and an inner unit are rendered, a picture
attributed (saliency, against plain autograd) and attacked; and the module is afterwards what it
was. Networks whose package is missing are left out.
"""

import argparse
import dataclasses
import importlib.util
import math
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from architecture_zoo import ALL, Architecture
from report import markdown, write
from torch import Tensor, nn

import featviz as fv
from featviz.errors import FeatvizWarning

#: Largest difference between featviz's score and that of a hook, relative to the activation.
TOLERANCE = 1e-3
STEPS = 2


@dataclasses.dataclass
class Row:
    """What was found for one network; ``problem`` is empty if all agrees."""

    name: str
    package: str
    weights: str
    layers: int = 0
    axes: int = 0
    guessed: int = 0
    error: float = 0.0
    seconds: float = 0.0
    problem: str = ""


def expected_units(module: nn.Module, ndim: int) -> tuple[int, int] | None:
    """Return the unit axis and the number of units that a module says it has, if it does."""
    if isinstance(module, (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)):
        units = getattr(module, "out_channels", None) or module.num_features
        return 1, units
    if isinstance(module, nn.GroupNorm):
        return 1, module.num_channels
    if isinstance(module, nn.Linear):
        return ndim - 1, module.out_features
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        # timm's LayerNorm2d permutes: the axis of that length, if there is one only
        return (ndim - 1 if type(module) is nn.LayerNorm else -1), module.normalized_shape[0]
    if isinstance(module, nn.RNNBase):
        return ndim - 1, module.hidden_size * (2 if module.bidirectional else 1)
    return None


def wake(net: nn.Module) -> None:
    """Draw the weights that start at zero or near it, so that every layer depends on the image."""
    for tensor in net.parameters():
        if float(tensor.detach().abs().max()) < 1e-4:
            nn.init.normal_(tensor, std=0.05)


def state_of(net: nn.Module) -> tuple[Any, ...]:
    modules = list(net.modules())
    return (
        [m.training for m in modules],
        [p.requires_grad for p in net.parameters()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in modules],
        [float(t.double().sum()) for t in net.state_dict().values() if torch.is_tensor(t)],
    )


def hooked(model: fv.Model, images: Tensor) -> dict[str, list[Any]]:
    """Return what every module returns, by plain forward hooks and plain preprocessing."""
    found: dict[str, list[Any]] = {}
    modules = {n: m for n, m in model.net.named_modules() if n}
    handles = [
        m.register_forward_hook(
            lambda _, __, output, n=n: found.setdefault(n, []).append(_copied(output))
        )
        for n, m in modules.items()
    ]
    training = [(m, m.training) for m in model.net.modules()]
    model.net.eval()
    shape = (1, -1, *(1,) * (images.ndim - 2))
    low, high = model.range
    mean, std = torch.tensor(model.mean).view(shape), torch.tensor(model.std).view(shape)
    inputs = (low + images * (high - low) - mean) / std
    try:
        with torch.no_grad():
            model.net(inputs) if model.call is None else model.call(model.net, inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training:
            module.training = mode
    return found


def _copied(output: Any) -> Any:
    if isinstance(output, (tuple, list)) and output:
        return _copied(output[0])
    return output.clone() if torch.is_tensor(output) else None


def examine(name: str, model: fv.Model, goal: str, row: Row) -> Row:
    """Fill in a row; raise AssertionError where featviz and plain torch disagree."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, model.channels, *model.size, generator=generator)
    plain = hooked(model, images)
    before = state_of(model.net)  # now, since transformers sets hooks of its own in the first pass
    table = model.layers()
    modules = dict(model.net.named_modules())
    row.layers = len(table)
    row.guessed = sum(info.guessed and info.batched for info in table)
    checked: list[tuple[str, int, int]] = []
    for info in table:
        address = info.name.split("[")[0]
        single = address in modules and info.calls == 1 and info.name in (address, f"{address}[0]")
        reference = plain.get(address, [None])[-1]
        if not (single and info.batched) or reference is None:
            continue
        expected = expected_units(modules[address], reference.ndim)
        if expected is None or tuple(reference.shape[1:]) != info.shape:
            continue
        axis, units = expected
        if axis == -1:
            sides = [k for k, side in enumerate(reference.shape) if k and side == units]
            if len(sides) != 1:
                continue
            axis = sides[0]
        assert (info.axis, info.units) == (axis, units), (
            f"{info.name}: axis {info.axis} of {info.units} units instead of {axis} of {units}"
        )
        checked.append((info.name, axis, units))
    row.axes = len(checked)
    assert checked, "no layer to compare"
    activations = model.activations(images, [layer for layer, _, _ in checked])
    for layer, _, _ in checked:
        reference = plain[layer.split("[")[0]][-1]
        scale = float(reference.abs().max()) + 1e-12
        difference = float((activations[layer] - reference).abs().max()) / scale
        row.error = max(row.error, difference)
        assert difference <= TOLERANCE, f"{layer}: differs from the hook by {difference:.2g}"
    for layer, axis, units in checked[:: max(1, len(checked) // 6)]:
        unit = units // 2
        reference = plain[layer.split("[")[0]][-1].movedim(axis, 1)[:, unit]
        score = fv.channel(layer, unit)(model, images)
        expected_score = reference.reshape(len(images), -1).mean(1)
        scale = float(reference.abs().max()) + 1e-12
        difference = float((score - expected_score).abs().max()) / scale
        row.error = max(row.error, difference)
        assert difference <= TOLERANCE, f"{layer}:{unit}: score off by {difference:.2g}"
    inner, _, units = checked[len(checked) * 2 // 3]
    target = fv.objective(goal)
    for objective in (target, fv.channel(inner, units // 2)):
        assert fv.objective(str(objective)) == objective
        result = fv.render(model, objective, steps=STEPS)
        assert result.images.shape == (1, model.channels, *model.size)
        assert result.images.isfinite().all(), f"{objective}: not finite"
        again = objective(model, result.images)
        scale = float(again.abs().max()) + 1e-6
        assert float((again - result.scores).abs().max()) / scale < 1e-2, f"{objective}: score"
    attribution = fv.attribute(model, images[:1], target, method="saliency").attributions
    leaf = images[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target(model, leaf).sum(), leaf)
    largest = float(gradient.abs().max())
    assert largest > 0, f"{goal}: no gradient"
    difference = float((attribution.abs() - gradient.abs()).abs().max())
    assert difference <= 1e-2 * largest, f"saliency differs by {difference / largest:.2g}"
    away = None if goal.startswith("class") else target  # of a classifier: the predicted class
    attacked = fv.attack(model, images[:1], away=away, steps=STEPS, eps=4 / 255, loss="margin")
    moved = float((attacked.images - images[:1]).abs().max())
    assert 0 < moved <= 4 / 255 + 1 / 510 + 1e-6, f"attack moved by {moved:.4f}"
    assert before == state_of(model.net), "the module is not what it was"
    return row


def row_of(name: str, entry: Architecture) -> Row | None:
    """Return the row of one network, or None if its package is missing."""
    row = Row(name, entry.package, entry.weights)
    package = entry.package.replace("-", "_")
    if importlib.util.find_spec(package) is None:
        return None
    started = time.perf_counter()
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            model = entry.build()
            if entry.weights == "random":
                wake(model.net)
        model.net.requires_grad_(True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", FeatvizWarning)
            examine(name, model, entry.goal, row)
    except Exception as error:
        trace = traceback.extract_tb(error.__traceback__)[-1]
        row.problem = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        row.problem += f" ({Path(trace.filename).name}:{trace.lineno})"
    row.seconds = time.perf_counter() - started
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="networks to examine; by default all")
    parser.add_argument("-o", "--output", type=Path, help="write the Markdown table here")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows: list[Row] = []
    missing: dict[str, list[str]] = {}
    for name, entry in ALL.items():
        if args.names and name not in args.names:
            continue
        row = row_of(name, entry)
        if row is None:
            missing.setdefault(entry.package, []).append(name)
            continue
        rows.append(row)
        print(f"{name}: {row.problem or 'agrees'} ({row.seconds:.1f} s)", flush=True)
    head = "network", "from", "weights", "layers", "axes checked", "guessed", "largest error", "all"
    table = markdown(
        head,
        [
            (
                r.name,
                r.package,
                r.weights,
                r.layers,
                r.axes,
                r.guessed,
                f"{r.error:.0e}" if math.isfinite(r.error) else "-",
                r.problem or "agrees",
            )
            for r in rows
        ],
    )
    print(table)
    good = sum(not row.problem for row in rows)
    print(f"{good} of {len(rows)} agree", *(f"; {p} is missing" for p in missing))
    if args.output:
        args.output.write_text(table + "\n")
    write(args.json, "cpu", rows=[dataclasses.asdict(row) for row in rows])


if __name__ == "__main__":
    main()
