"""Write docstrings for the documentation site: doctests, roles and citations as Markdown."""

import re
from pathlib import Path
from typing import Any

import griffe

_DOCTEST = re.compile(r"(?:^>>> .*\n?(?:^(?!>>> )\S.*\n?|^\s+\S.*\n?)*)+", re.MULTILINE)
_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr):`(~?)([\w.]+)`")
_CITATION = re.compile(r"\[([A-Z]\w+\d{4}\w?)\]_")
_ENTRIES = frozenset(
    entry
    for page in Path(__file__).parent.glob("api/*.md")
    for entry in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
)


def fence(text: str) -> str:
    """Return a docstring with its doctests in code fences, without flags and prompts' options.

    Markdown would take them for block quotes.
    """
    text = re.sub(r"\s+# doctest: .*", "", text)
    return _DOCTEST.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", text)


def link(text: str) -> str:
    """Return a docstring with Sphinx's roles and citations as links.

    >>> link(":func:`featviz.render` [Olah2017]_, :meth:`save`, :class:`~a.b.C`")
    '[`featviz.render`][featviz.render] [[Olah2017]](../references.md#Olah2017), `save`, `C`'
    """

    def role(match: re.Match[str]) -> str:
        short, name = match.groups()
        shown = name.rpartition(".")[2] if short else name
        target = next((e for e in (name, f"featviz.{name}") if e in _ENTRIES), None)
        return f"`{shown}`" if target is None else f"[`{shown}`][{target}]"

    # Relative to the pages of the API.
    return _CITATION.sub(r"[[\1]](../references.md#\1)", _ROLE.sub(role, text))


class Docstrings(griffe.Extension):
    """Applied to every object that has a docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            text = link(obj.docstring.value)
            obj.docstring.value = fence(text) if ">>> " in text else text
