"""An activation atlas at scale: time, memory, and what remains after ``kill -9``.

    python benchmarks/activation_atlas.py --out atlas/                  # 864 crops of photographs
    python benchmarks/activation_atlas.py FOLDER --layer _blocks.13 --grid 12 --out atlas/

A process makes the atlas and is killed after half of the cells; another one goes on to the end; a
third makes it without interruption. Prints the seconds and the peak memory of each, how many cells
the second one found, and whether both atlases are equal to the byte. UMAP if it is installed.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from report import machine, markdown

import featviz as fv

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from recipe_pictures import patches


def make(options: argparse.Namespace) -> None:
    """Make the atlas in this process, and kill it once enough cells are stored."""
    images = options.images or patches(36)
    cells = Path(options.out, "cells")

    def watch(step: fv.callbacks.Step) -> None:
        if options.kill_at and len(list(cells.glob("*.safetensors"))) >= options.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    begun = time.perf_counter()
    made = fv.recipes.activation_atlas(
        fv.load("efficientnet_lite0"), images, options.layer, options.out, grid=options.grid,
        steps=options.steps, size=96, callbacks=[watch] if options.kill_at else [],
    )  # fmt: skip
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - begun,
                "memory": memory,
                "cells": len(made.cells),
                "activations": len(made.gathered),
                "plane": made.method,
            }
        )
    )


def run(options: argparse.Namespace, out: Path, kill_at: int = 0) -> tuple[int, dict]:
    command = [sys.executable, __file__, *([str(options.images)] if options.images else [])]
    command += ["--layer", options.layer, "--grid", str(options.grid), "--out", str(out)]
    command += ["--steps", str(options.steps), "--kill-at", str(kill_at), "--child"]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    if done.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(done.stderr)
    return done.returncode, json.loads(lines[-1]) if lines else {}


def stored(folder: Path) -> dict[str, bytes]:
    kinds = (".png", ".html", ".safetensors")
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.suffix in kinds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="?", type=Path)
    parser.add_argument("--layer", default="_blocks.13")
    parser.add_argument("--grid", type=int, default=12)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kill-at", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        make(options)
        return
    print(", ".join(f"{k} {v}" for k, v in machine().items()))
    whole, killed = options.out / "whole", options.out / "killed"
    _, straight = run(options, whole)
    begun = time.perf_counter()
    status, _ = run(options, killed, kill_at=len(stored(whole / "cells")) // 2)
    first = time.perf_counter() - begun
    found = len(stored(killed / "cells"))
    _, resumed = run(options, killed)
    rows = [
        ("without interruption", f"{straight['seconds']:.0f}", f"{straight['memory']:.0f}"),
        (f"killed (status {status})", f"{first:.0f}", ""),
        ("resumed", f"{resumed['seconds']:.0f}", f"{resumed['memory']:.0f}"),
    ]
    print(markdown(("", "seconds", "peak memory, MiB"), rows))
    same = stored(whole) == stored(killed)
    print(
        f"{straight['activations']} activations, {straight['cells']} cells by {straight['plane']}; "
        f"{found} files of cells were kept; equal to the byte: {same}"
    )


if __name__ == "__main__":
    main()
