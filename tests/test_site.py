"""The documentation site: every public name has its entry, every page its place."""

import importlib.util
import re
from pathlib import Path

import featviz as fv

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


#: Modules, whose members are listed under the module's real name.
MODULES = {
    "callbacks": "featviz.optim.callbacks",
    "gradients": "featviz.networks.gradients",
    "objectives": "featviz.Objective",
    "optimizers": "featviz.optim.optimizers",
    "video": "featviz.io.video",
    "zoo": "featviz.zoo.export",
}


def test_docstrings_are_written_for_the_site():
    docstrings = script(DOCS / "griffe_docstrings.py")
    assert (
        docstrings.link(":func:`~featviz.render`, :meth:`save`")
        == "[`render`][featviz.render], `save`"
    )
    assert docstrings.link("See [Olah2017]_.") == "See [[Olah2017]](../references.md#Olah2017)."
    assert (
        docstrings.fence("Add.\n\n>>> 1 + 1  # doctest: +SKIP\n2\n")
        == "Add.\n\n```pycon\n>>> 1 + 1\n2\n```\n"
    )


def test_every_citation_has_its_reference():
    page = script(DOCS / "tutorial_pages.py").references((DOCS / "references.bib").read_text())
    keys = re.findall(r"^### (\w+)", page, re.MULTILINE)
    assert len(keys) == (DOCS / "references.bib").read_text().count("\n@") + 1
    sources = "\n".join(path.read_text() for path in Path(fv.__file__).parent.rglob("*.py"))
    cited = set(re.findall(r"\[([A-Z]\w+\d{4}\w?)\]_", sources))
    assert cited
    assert cited <= set(keys), sorted(cited - set(keys))
    assert "### Olah2017 { #Olah2017 }\n\nChris Olah, Alexander Mordvintsev" in page


def test_every_public_name_has_an_entry():
    pages = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    entries = re.findall(r"^::: (\S+)$", pages, re.MULTILINE)
    assert len(entries) == len(set(entries))
    wanted = {MODULES.get(name, f"featviz.{name}") for name in fv.__all__ if name != "__version__"}
    assert wanted <= set(entries), sorted(wanted - set(entries))


def test_the_parameterizations_have_entries():
    listed = re.search(r"members: \[(.*)\]", (DOCS / "api/param.md").read_text())[1].split(", ")
    for name in listed:
        assert hasattr(fv.param, name)
    classes = {kind.__name__ for kind in fv.param.NAMES.values()}
    assert classes <= set(listed)


def test_every_page_is_in_the_navigation():
    nav = set(re.findall(r"([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    tutorials = {f"tutorials/{page.stem}.md" for page in DOCS.glob("tutorials/*.py")}
    assert nav == pages | tutorials | {"references.md"}


def test_pictures_of_the_gallery_have_their_script():
    text = (DOCS / "gallery.md").read_text()
    pictures = re.findall(r"\]\(images/(\S+)\)", text)
    scripts = re.findall(r"`python (scripts/\w+\.py)`", text)
    assert len(pictures) == len(scripts) + 1  # the viewer's is a screenshot
    for script in scripts:
        assert (ROOT / script).exists()
