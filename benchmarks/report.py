"""What the benchmarks share: the machine they ran on, tables and JSON."""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import featviz as fv


def machine(device: str = "cpu") -> dict[str, Any]:
    """Return what a reader has to know to compare figures."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "featviz": fv.__version__,
    }


def markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a markdown table whose columns line up in a terminal, too."""
    cells = [[str(c) for c in row] for row in (head, *rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(head))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) + " |" for r in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def write(path: Path | None, device: str, **content: Any) -> None:
    """Write ``content`` and the machine as JSON, where a path is given."""
    if path:
        path.write_text(json.dumps({"machine": machine(device), **content}, indent=1) + "\n")
