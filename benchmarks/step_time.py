"""How long does a step take, against the usual loops and against the bare pass?

    python benchmarks/step_time.py --rounds 7 --steps 10              # Lite0, middle, batch 8
    python benchmarks/step_time.py --compile --json step_time.json
    python benchmarks/step_time.py --all --steps 5 --json all.json    # featviz and bare only

All contenders run in one process, in turns whose order rotates with every round. A figure is the
median over the rounds of the median over a round's steps, in milliseconds for one image and
step; its spread is the lowest and highest round. A ratio is the median of the ratios within a
round, so that a slow minute of the machine cancels. Compilation, the layer table and the first
``--skip`` steps are not counted; neither is the redirection of ReLUs (``redirect=0``), which in
practice is on in the first 16 of 512 steps.
"""

import argparse
import itertools
import statistics
import sys
from pathlib import Path

import torch
from networks import NETWORKS, PLACES, load
from peers import Bare, Dreamlens, LucidStyle, MissingPeerError, now
from report import machine, markdown, write

import featviz as fv

EAGER, COMPILED, BARE = "featviz", "featviz compiled", "bare"
PEERS = ("lucid-style", "lucid-style one by one", "dreamlens", "dreamlens batched", BARE)
#: What a ratio should be: numerator, denominator, at least (1) or at most (-1), how much.
GOALS = (
    ("lucid-style", EAGER, 1, 6.0),
    ("lucid-style one by one", EAGER, 1, 6.0),
    ("lucid-style", COMPILED, 1, 10.0),
    ("lucid-style one by one", COMPILED, 1, 10.0),
    ("dreamlens", EAGER, 1, 4.0),
    ("dreamlens batched", EAGER, 1, 4.0),
    (EAGER, BARE, -1, 1.10),
    (COMPILED, BARE, -1, 0.75),
)


class Featviz:
    """``fv.render`` with its defaults, timed from step to step by a callback."""

    def __init__(self, model, layer, channels, size=None, **options) -> None:
        # The callback ends it; runs of fewer than 32 steps are not traced.
        self.model, self.options = model, {"size": size, "redirect": 0, "steps": 512, **options}
        self.goals = [fv.channel(layer, c) for c in channels]

    def times(self, steps: int, skip: int) -> list[float]:
        found: list[float] = []
        last = 0.0

        def mark(step: fv.callbacks.Step) -> bool:
            nonlocal last
            here = now(self.model.device)
            if step.index > skip:
                found.append((here - last) / len(step.run.seeds))
            last = here
            return step.index > skip + steps - 1

        fv.render(
            self.model,
            self.goals,
            batch_size=len(self.goals),
            seed=0,
            callbacks=[mark],
            **self.options,
        )
        return found


def contenders(options, model, layer, channels, fixed) -> dict[str, object]:
    """Build what is timed; what cannot be built is named on stderr and left out."""
    place = (model, layer, channels, options.size)
    wanted = {EAGER: lambda: Featviz(*place), BARE: lambda: Bare(*place)}
    if options.compile:
        wanted[COMPILED] = lambda: Featviz(*place, compile=True)
    if not options.all:
        wanted["lucid-style"] = lambda: LucidStyle(*place, fixed=fixed)
        wanted["lucid-style one by one"] = lambda: LucidStyle(*place, fixed=fixed, batched=False)
        wanted["dreamlens"] = lambda: Dreamlens(*place)
        wanted["dreamlens batched"] = lambda: Dreamlens(*place, batched=True)
    built = {}
    for name, build in wanted.items():
        if options.only and name not in (*options.only, EAGER, COMPILED):
            continue
        try:
            built[name] = build()
        except MissingPeerError as reason:
            print(f"{name} is left out: {reason}", file=sys.stderr)
    return built


def case(options, name: str, place: str, batch: int) -> dict:
    """Time all contenders on one network, layer and batch."""
    network, model = NETWORKS[name], load(name, options.device)
    layer = network.layer(place)
    units = model.layer(layer).units
    channels = [7 * i % units for i in range(batch)]
    loops = contenders(options, model, layer, channels, network.fixed)
    rounds = in_turns(loops, options)
    size = options.size or model.size[0]
    return {"network": name, "layer": layer, "batch": batch, "size": size, "ms": rounds}


def in_turns(loops: dict, options) -> dict[str, list[float]]:
    """Return the median milliseconds of a step in each round, the order rotating with it."""
    for loop in loops.values():
        loop.times(1, 0)
    rounds: dict[str, list[float]] = {name: [] for name in loops}
    order = list(loops)
    for turn in range(options.rounds):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            seconds = loops[name].times(options.steps, options.skip)
            rounds[name].append(1000 * statistics.median(seconds))
    return rounds


def ratio(found: dict, above: str, below: str) -> float:
    """Return the median over the rounds of one contender's time by another's."""
    pairs = zip(found["ms"][above], found["ms"][below], strict=True)
    return statistics.median(a / b for a, b in pairs)


def table(found: dict) -> str:
    """Return the contenders' times, then the ratios that have a goal."""
    rows = [
        (
            name,
            f"{statistics.median(ms):.2f}",
            f"{min(ms):.2f}–{max(ms):.2f}",
            f"{ratio(found, name, EAGER):.2f}",
        )
        for name, ms in found["ms"].items()
    ]
    lines = [markdown(("contender", "ms an image and step", "spread", "x featviz"), rows)]
    for above, below, sign, goal in GOALS:
        if above in found["ms"] and below in found["ms"]:
            value = ratio(found, above, below)
            verdict = "met" if sign * value >= sign * goal else "missed"
            relation = ">=" if sign > 0 else "<="
            lines.append(f"{above} / {below}: {value:.2f} (goal {relation} {goal:.2f}, {verdict})")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", choices=NETWORKS)
    parser.add_argument("--layer", nargs="+", help="early, middle, late or a name")
    parser.add_argument("--batch", type=int, nargs="+")
    parser.add_argument("--all", action="store_true", help="every case, featviz and bare only")
    parser.add_argument("--only", nargs="+", choices=PEERS, help="of the peers, these")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a round")
    parser.add_argument("--skip", type=int, default=3, help="steps before those, not timed")
    parser.add_argument("--size", type=int, help="side of the images; the network's own")
    parser.add_argument("--compile", action="store_true", help="also featviz with compile=True")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    networks = options.network or (list(NETWORKS) if options.all else ["lite0"])
    layers = options.layer or (PLACES if options.all else ["middle"])
    batches = options.batch or ([1, 8, 32] if options.all else [8])

    here = machine(options.device)
    print(", ".join(f"{k} {v}" for k, v in here.items()))
    found = []
    for name, place, batch in itertools.product(networks, layers, batches):
        found.append(case(options, name, place, batch))
        last = found[-1]
        print(f"\n{name}, {last['layer']}, batch {batch}, {last['size']} px")
        print(table(last), flush=True)
        settings = {k: getattr(options, k) for k in ("rounds", "steps", "skip")}
        write(options.json, options.device, settings=settings, cases=found)


if __name__ == "__main__":
    main()
