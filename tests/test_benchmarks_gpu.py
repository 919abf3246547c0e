"""The benchmark for GPUs runs, so that a device that is lent for minutes is not spent on typos."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_section_runs_on_the_cpu(tmp_path):
    command = [sys.executable, "benchmarks/gpu.py", "--dry-run", "--json", str(tmp_path / "gpu")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    sections = json.loads((tmp_path / "gpu").read_text())["sections"]
    assert list(sections) == ["steps", "syncs", "equality", "layer", "others", "tests"]
    assert all(rows and "failed" not in row for rows in sections.values() for row in rows)
    # On the CPU the images to compare are the same.
    assert {row["largest"] for row in sections["equality"]} == {"0.0000"}
