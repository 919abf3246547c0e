"""The Python blocks of README and docs run as they stand, page by page and in order.

The code is not changed. What makes it fast is two steps by default (but in attributions, whose
methods would say that they need more), a folder with a few small photographs, and the replacements in ``SMALLER``, each of which must still occur. A comment
before a block says what is left out: ``<!-- not run: reason -->``; one whose packages are not
installed is left out too.
"""

import importlib.util
import re
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

import featviz as fv
from featviz.atlases import settings as atlases
from tests import nets

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL
)

#: A page, what it says, and what is run instead.
SMALLER = {
    "docs/dream.md": {"frames=240": "frames=2"},
    "docs/attribution.md": {
        "found.curves(model)": "found.curves(model, cells=7)",
        "infill=fill)": "infill=fill, steps=2)",
    },
    "docs/recipes.md": {"k=6, obj": "k=2, obj", "k=6)": "k=2)", "cells=7": "cells=2"},
    "docs/atlas.md": {'["_blocks.10"], out': '["_blocks.10"], units=[41, 42], out'},
}
SLOW = {"docs/check.md", "docs/attribution.md", "docs/recipes.md"}


def blocks(page: str) -> list[tuple[str, str, int]]:
    """Return the code, why it is not run, and the line of every Python block of a page."""
    text = (ROOT / page).read_text()
    return [
        (match["code"], match["reason"] or "", text[: match.start("code")].count("\n"))
        for match in BLOCK.finditer(text)
    ]


PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if "```python" in page.read_text()
)


@pytest.fixture
def small_defaults(monkeypatch):
    for kind in [fv.Settings, fv.DreamSettings, fv.AttackSettings, atlases.AtlasSettings]:
        monkeypatch.setitem(kind.__init__.__kwdefaults__, "steps", 2)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory of a page: cat.png, photo.jpg and photos/."""
    monkeypatch.chdir(tmp_path)
    cat = Image.fromarray(skimage.data.chelsea()).resize((128, 128))
    cat.save("cat.png")
    cat.save("photo.jpg")
    Path("photos").mkdir()
    for name in ("astronaut", "coffee", "rocket", "chelsea"):
        Image.fromarray(getattr(skimage.data, name)()).resize((64, 64)).save(f"photos/{name}.png")


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=pytest.mark.slow) if p in SLOW else p for p in PAGES]
)
def test_blocks_run(page, folder, small_defaults):
    namespace: dict = {"__name__": "page", "net": nets.seeded(lambda: nets.Small(3))}
    left = dict(SMALLER.get(page, {}))
    for code, reason, line in blocks(page):
        packages = re.findall(r"^import (\w+)", code, re.MULTILINE)
        if reason or not all(map(importlib.util.find_spec, packages)):
            continue
        for old in [old for old in left if old in code]:
            code = code.replace(old, left.pop(old))
        exec(compile("\n" * line + code, str(ROOT / page), "exec"), namespace)
    assert not left, "no longer on the page"


def test_blocks_that_are_not_run_are_few():
    reasons = [reason for page in PAGES for _, reason, _ in blocks(page) if reason]
    total = sum(len(blocks(page)) for page in PAGES)
    assert len(reasons) <= 6 < 15 <= total
