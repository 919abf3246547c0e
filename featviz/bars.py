"""Progress bars: tqdm's, drawn by the notebook where it can, in text elsewhere."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any


def tqdm(*args: Any, progress: bool | None, **keywords: Any) -> Any:
    """Return a tqdm bar: of widgets in a notebook with ipywidgets, otherwise of text.

    ``progress`` is as in :func:`wanted`. ``tqdm.auto`` warns in every notebook without ipywidgets.
    """
    if importlib.util.find_spec("ipywidgets") is None:
        from tqdm import tqdm as bar
    else:
        from tqdm.auto import tqdm as bar
    return bar(*args, disable=not wanted(progress), **keywords)


def wanted(progress: bool | None) -> bool:
    """Return whether to draw a bar: as asked, or for None in interactive sessions and notebooks.

    Never into a file or a pipe.
    """
    if progress is False:
        return False
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and hasattr(shell, "kernel"):
        return True
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    return bool(progress or shell is not None or hasattr(sys, "ps1"))
