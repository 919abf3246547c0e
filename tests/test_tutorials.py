"""The tutorials: notebooks show what their sources say, run, and become pages."""

import base64
import importlib.util
import io
import json
from pathlib import Path

import pytest
from PIL import Image

import featviz as fv
from featviz.optim import quality

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "docs" / "tutorials").glob("*.py"))


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


builder = script(ROOT / "scripts" / "build_tutorials.py")


def outputs(notebook):
    return [output for cell in notebook["cells"] for output in cell.get("outputs", ())]


@pytest.fixture
def small_defaults(monkeypatch):
    """Two steps by default, and four where a preset says how many."""
    for kind in (fv.Settings, fv.DreamSettings, fv.AttackSettings):
        monkeypatch.setitem(kind.__init__.__kwdefaults__, "steps", 2)
    for preset in quality.QUALITIES.values():
        monkeypatch.setitem(vars(preset), "steps", 4)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebooks_are_those_of_the_sources(source):
    """After an edit: python scripts/build_tutorials.py NAME."""
    notebook = json.loads(source.with_suffix(".ipynb").read_text())
    cells = [(cell["cell_type"], cell["source"]) for cell in notebook["cells"]]
    assert cells == builder.cells(source.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert source.with_suffix(".ipynb").stat().st_size < 600_000
    for output in outputs(notebook):
        picture = output.get("data", {}).get("image/jpeg")
        if picture:
            assert Image.open(io.BytesIO(base64.b64decode(picture))).format == "JPEG"
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs(notebook)) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_tutorials_run(source, small_defaults, tmp_path, monkeypatch):
    """With few steps, and in the same forms as the notebooks have."""
    (tmp_path / source.name).write_text(source.read_text())
    (tmp_path / "cat.jpg").write_bytes(source.with_name("cat.jpg").read_bytes())
    made = json.loads(builder.build(tmp_path / source.name).read_text())
    stored = json.loads(source.with_suffix(".ipynb").read_text())
    assert [sorted(o.get("data", ())) for o in outputs(made)] == [
        sorted(o.get("data", ())) for o in outputs(stored)
    ]


def test_a_cell_shows_what_it_prints_and_its_last_value():
    namespace = {}
    stream, value = builder.run("x = 2\nprint('a')\nx * 3", namespace)
    assert stream["text"] == "a\n"
    assert value["data"] == {"text/plain": "6"}
    assert builder.run("y = x", namespace) == []
    assert builder.run("None", namespace) == []
    picture = builder.run("from PIL import Image\nImage.new('RGB', (2000, 10))", {})[0]["data"]
    stored = Image.open(io.BytesIO(base64.b64decode(picture["image/jpeg"])))
    assert (stored.format, stored.size) == ("JPEG", (1000, 5))
    assert picture["text/plain"] == "a picture"


def test_pages_have_code_outputs_and_pictures():
    pages = script(ROOT / "docs" / "tutorial_pages.py")
    picture = {"image/jpeg": base64.b64encode(b"jpeg").decode(), "text/plain": "<Result: a&b>"}
    cells = [
        {"cell_type": "markdown", "source": "# Title\n[next](other.ipynb)"},
        {"cell_type": "code", "source": "x", "outputs": [{"data": picture}]},
        {"cell_type": "code", "source": "y", "outputs": [{"text": "printed\n"}]},
        {
            "cell_type": "code",
            "source": "z",
            "outputs": [{"data": {"text/plain": "1", "text/html": "<b>1</b>"}}],
        },
    ]
    text, pictures = pages.page({"cells": cells}, "name")
    assert pictures == {"name-1.jpg": b"jpeg"}
    assert "[next](other.md)" in text
    assert "(name.ipynb)" in text
    assert "![Result: a&amp;b](name-1.jpg)" in text
    assert "```text\nprinted\n```" in text
    assert '<div class="output"><b>1</b></div>' in text
