"""Progress bars: tqdm's, drawn by the notebook where it can, in text elsewhere."""

from __future__ import annotations

import importlib.util
from typing import Any


def tqdm(*args: Any, **keywords: Any) -> Any:
    """Return a tqdm bar: of widgets in a notebook with ipywidgets, otherwise of text.

    ``tqdm.auto`` warns in every notebook without ipywidgets.
    """
    if importlib.util.find_spec("ipywidgets") is None:
        from tqdm import tqdm as bar
    else:
        from tqdm.auto import tqdm as bar
    return bar(*args, **keywords)
