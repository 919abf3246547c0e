"""TensorBoard's event files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from featviz.errors import FeatvizError

#: Seconds after which TensorBoard's thread looks for events by itself. A signal can interrupt the
#: notice that there are some, and closing waits until they are written: by default, two minutes.
_WAKES = 1


def open_events(folder: str | Path) -> Any:
    """Return a ``SummaryWriter`` of ``folder``.

    Raises
    ------
    FeatvizError
        If the folder cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter

    try:
        return SummaryWriter(str(folder), flush_secs=_WAKES)
    except OSError as error:
        raise FeatvizError(f"cannot write {str(folder)!r}: {error.strerror}") from error
