"""How much memory does a render need above the loaded network, by depth, size and batch?

    python benchmarks/memory.py                                    # Lite0, 18 cases and the tail
    python benchmarks/memory.py --network resnet50 --json memory.json

Every case runs in a process of its own: the network is loaded, an image of 32 px warms up, the
peak is set back (Linux, /proc/self/clear_refs), and three steps of a render raise it. The figure
is that rise in resident memory; on CUDA, in what torch has allocated. The *tail* is Lite0 with ten
times as many blocks behind ``_blocks.3``: an image of that layer should need no more for them.
"""

import argparse
import copy
import ctypes
import itertools
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch
from networks import NETWORKS, PLACES, load
from report import markdown, write
from torch import nn

import featviz as fv

TAIL = "lite0 with a tail"


def with_tail(model: fv.Model, times: int = 10) -> fv.Model:
    """Return Lite0 with ``times`` as many blocks behind ``_blocks.3``, copies of its own.

    Those that keep the shape are repeated, each beside its original.
    """
    net = copy.deepcopy(model.net)
    blocks = list(net._blocks)
    kept = [i for i in range(4, len(blocks)) if _keeps_shape(blocks[i]._block_args)]
    extra = (times - 1) * (len(blocks) - 4)
    grown = []
    for index, block in enumerate(blocks):
        grown.append(block)
        if index in kept:
            share = extra // len(kept) + (kept.index(index) < extra % len(kept))
            grown += [copy.deepcopy(block) for _ in range(share)]
    net._blocks = nn.ModuleList(grown)
    return fv.Model(net, mean=model.mean[0], std=model.std[0], size=model.size)


def _keeps_shape(args) -> bool:
    return args.stride == 1 and args.input_filters == args.output_filters


def measure(name: str, place: str, size: int, batch: int, device: str, steps: int) -> dict:
    """Render in this process and return the rise of the peak in MiB."""
    network = NETWORKS["lite0" if name == TAIL else name]
    model = load("lite0" if name == TAIL else name)
    if name == TAIL:
        model = with_tail(model)
    model = model.on(torch.device(device))
    layer = network.layer(place)

    def render(side: int, count: int, updates: int) -> None:
        goals = [fv.channel(layer, c) for c in range(count)]
        # Of a long run the first steps: a short one would not trace the network.
        fv.render(
            model, goals, size=side, steps=512, callbacks=[lambda step: step.index + 1 == updates]
        )

    render(model.size[0] if network.fixed else 32, 1, 1)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        render(size, batch, steps)
        rise = torch.cuda.max_memory_allocated() - before
    else:
        before = _settle()
        render(size, batch, steps)
        rise = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT - before
    weights = sum(t.numel() * t.element_size() for t in model.net.state_dict().values())
    row = {"network": name, "layer": layer, "size": size, "batch": batch}
    return {
        **row,
        "mib": rise / 2**20,
        "loaded_mib": before / 2**20,
        "weights_mib": weights / 2**20,
    }


_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def _settle() -> int:
    """Give freed memory back, set the peak to what is in use, where Linux can, and return it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


def apart(*case: object) -> dict:
    """Run :func:`measure` in a fresh process."""
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="lite0")
    parser.add_argument("--layers", nargs="+", default=list(PLACES))
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 224, 448])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(*json.loads(options.case))))
        return
    if NETWORKS[options.network].fixed:
        options.sizes = [load(options.network).size[0]]
    cases = list(
        itertools.product([options.network], options.layers, options.sizes, options.batches)
    )
    if options.network == "lite0":
        both = itertools.product(("lite0", TAIL), ["early"], [224], options.batches)
        cases = list(dict.fromkeys([*cases, *both]))
    found = []
    for name, place, size, batch in cases:
        found.append(apart(name, place, size, batch, options.device, options.steps))
        print(".", end="", flush=True, file=sys.stderr)
        write(options.json, options.device, steps=options.steps, cases=found)
    print(file=sys.stderr)
    head = ("network", "layer", "size", "batch", "MiB above the loaded network", "weights MiB")
    rows = [
        (
            *(row[k] for k in ("network", "layer", "size", "batch")),
            f"{row['mib']:.1f}",
            f"{row['weights_mib']:.1f}",
        )
        for row in found
    ]
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
