"""When a progress bar is drawn: as asked on terminals, by default where a person works."""

import sys
import types

import pytest
import torch

import featviz as fv
from featviz import bars


class Terminal:
    def __init__(self, is_terminal: bool) -> None:
        self.text, self._is_terminal = "", is_terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize(
    ("progress", "terminal", "session", "expected"),
    [
        (None, True, "script", False),
        (None, True, "prompt", True),
        (None, True, "ipython", True),
        (None, False, "prompt", False),
        (None, False, "notebook", True),
        (True, True, "script", True),
        (True, False, "script", False),
        (True, False, "notebook", True),
        (False, True, "prompt", False),
        (False, False, "notebook", False),
    ],
)
def test_where_a_bar_is_drawn(monkeypatch, progress, terminal, session, expected):
    monkeypatch.setattr(sys, "stderr", Terminal(terminal))
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    if session == "prompt":
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    if session in ("ipython", "notebook"):
        shell = types.SimpleNamespace(**({"kernel": 1} if session == "notebook" else {}))
        module = types.SimpleNamespace(get_ipython=lambda: shell)
        monkeypatch.setitem(sys.modules, "IPython", module)
    assert bars.wanted(progress) is expected


def test_verbs_draw_it_by_default_at_a_prompt_only(monkeypatch, tiny, tmp_path):
    images = torch.rand(2, 2, 8, 8)
    for session in ("script", "prompt"):
        screen = Terminal(True)
        monkeypatch.setattr(sys, "stderr", screen)
        if session == "prompt":
            monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
        for call in (
            lambda: fv.render(tiny, "channel:first:0", steps=2),
            lambda: fv.attack(tiny, images, steps=2),
            lambda: fv.examples(tiny, images, "channel:first:0"),
        ):
            screen.text = ""
            call()
            assert bool(screen.text) is (session == "prompt")
