"""Run the tutorials and write them as notebooks with their outputs.

Reads docs/tutorials/*.py, in which ``# %%`` begins a cell of code and ``# %% [markdown]`` one of
text, and writes a notebook beside each; its pictures are JPEG, so that they stay small. The
documentation site is made of the notebooks (docs/tutorial_pages.py). One name, or all of them
(seven minutes on one core):

    python scripts/build_tutorials.py first_picture
"""

import argparse
import ast
import base64
import contextlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

TUTORIALS = Path(__file__).parent.parent / "docs" / "tutorials"
_CELL = re.compile(r"^# %%(?P<markdown> \[markdown\])?\n", re.MULTILINE)
#: The quality of JPEGs; larger pictures are reduced to this many pixels on a side.
_QUALITY, _LARGEST = 82, 1000


def cells(source: str) -> list[tuple[str, str]]:
    r"""Split a tutorial into cells: pairs of ``"markdown"`` or ``"code"`` and their text.

    >>> cells('# %% [markdown]\n# # Title\n# Text\n\n# %%\na = 1\n\nb = 2\n')
    [('markdown', '# Title\nText'), ('code', 'a = 1\n\nb = 2')]
    """
    found = []
    marks = [*_CELL.finditer(source)]
    ends = [mark.start() for mark in marks[1:]] + [len(source)]
    for mark, end in zip(marks, ends, strict=True):
        text = source[mark.end() : end].strip()
        if mark["markdown"]:
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        found.append(("markdown" if mark["markdown"] else "code", text))
    return found


def run(code: str, namespace: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a cell as a notebook does and return its outputs: what it prints, and its last value."""
    tree = ast.parse(code)
    last = tree.body[-1]
    shown = ast.Expression(last.value) if isinstance(last, ast.Expr) else None
    if shown is not None:
        tree.body.pop()
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), namespace)
        if shown is not None:
            value = eval(compile(shown, "cell", "eval"), namespace)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue()})
    if value is not None:
        data = representation(value)
        outputs.append({"output_type": "display_data", "metadata": {}, "data": data})
    return outputs


def representation(value: Any) -> dict[str, str]:
    """Return the forms of a value that a notebook stores, by media type."""
    text = "a picture" if isinstance(value, Image.Image) else repr(value)  # without its address
    forms = {"text/plain": text}
    picture = getattr(value, "_repr_png_", lambda: None)()
    if picture is not None:
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        image.thumbnail((_LARGEST, _LARGEST))
        stored = io.BytesIO()
        image.save(stored, "JPEG", quality=_QUALITY, optimize=True)
        forms["image/jpeg"] = base64.b64encode(stored.getvalue()).decode()
        return forms
    page = getattr(value, "_repr_html_", lambda: None)()
    return forms if page is None else {**forms, "text/html": page}


def notebook(source: str) -> dict[str, Any]:
    """Run the cells of a tutorial in order and return the notebook (nbformat 4.5)."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    made: list[dict[str, Any]] = []
    for i, (kind, text) in enumerate(cells(source)):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{i}", "metadata": {}}
        cell["source"] = text
        if kind == "code":
            cell["execution_count"] = sum(c["cell_type"] == "code" for c in made) + 1
            cell["outputs"] = run(text, namespace)
        made.append(cell)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


@contextlib.contextmanager
def _working_directory(folder: str) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def retold(path: Path) -> Path:
    """Put the texts of a tutorial into its notebook, whose code must be the same.

    Raises
    ------
    SystemExit
        If the code differs: its outputs would be those of other code.
    """
    written = path.with_suffix(".ipynb")
    page = json.loads(written.read_text())
    told = cells(path.read_text())
    pairs = list(zip(page["cells"], told, strict=False))
    if len(told) != len(page["cells"]) or any(
        c["cell_type"] != kind or (kind == "code" and c["source"] != text)
        for c, (kind, text) in pairs
    ):
        raise SystemExit(f"{path.name}: its code has changed, run it without --text")
    for cell, (_, text) in pairs:
        cell["source"] = text
    written.write_text(json.dumps(page, indent=1, ensure_ascii=False) + "\n")
    return written


def build(path: Path) -> Path:
    """Run a tutorial, write its notebook beside it and return the notebook's path."""
    with tempfile.TemporaryDirectory() as folder:
        for photograph in path.parent.glob("*.jpg"):
            shutil.copy(photograph, folder)
        with _working_directory(folder):
            page = notebook(path.read_text())
    written = path.with_suffix(".ipynb")
    written.write_text(json.dumps(page, indent=1, ensure_ascii=False) + "\n")
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    names = sorted(path.stem for path in TUTORIALS.glob("*.py"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--text", action="store_true", help="only texts have changed: run nothing")
    arguments = parser.parse_args()
    for name in arguments.names or names:
        start = time.perf_counter()
        written = (retold if arguments.text else build)(TUTORIALS / f"{name}.py")
        seconds, size = time.perf_counter() - start, written.stat().st_size // 1024
        print(f"{name}: {seconds:.0f} s, {size} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
