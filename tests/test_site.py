"""The documentation site: every public name has its entry, every page its place."""

import re
from pathlib import Path

import featviz as fv

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

#: Modules, whose members are listed under the module's real name.
MODULES = {
    "callbacks": "featviz.optim.callbacks",
    "gradients": "featviz.networks.gradients",
    "objectives": "featviz.Objective",
    "optimizers": "featviz.optim.optimizers",
    "video": "featviz.io.video",
    "zoo": "featviz.zoo.export",
}


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
    assert nav == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def test_pictures_of_the_gallery_have_their_script():
    text = (DOCS / "gallery.md").read_text()
    pictures = re.findall(r"\]\(images/(\S+)\)", text)
    scripts = re.findall(r"`python (scripts/\w+\.py)`", text)
    assert len(pictures) == len(scripts) + 1  # the viewer's is a screenshot
    for script in scripts:
        assert (ROOT / script).exists()
