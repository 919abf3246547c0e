"""Fence the doctests in docstrings, which Markdown would otherwise take for block quotes."""

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"(?:^>>> .*\n?(?:^(?!>>> )\S.*\n?|^\s+\S.*\n?)*)+", re.MULTILINE)


def fence(text: str) -> str:
    """Return a docstring with its doctests in code fences, without flags and prompts' options."""
    text = re.sub(r"\s+# doctest: .*", "", text)
    return _DOCTEST.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", text)


class Doctests(griffe.Extension):
    """Applied to every object that has a docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence the doctests of one object."""
        if obj.docstring and ">>> " in obj.docstring.value:
            obj.docstring.value = fence(obj.docstring.value)
