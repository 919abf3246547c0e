"""Atomic file writing."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from featviz.errors import FeatvizError


def check_writable(path: str | Path) -> Path:
    """Return ``path`` if a file can be written there; raise before a long computation otherwise.

    Raises
    ------
    FeatvizError
        If its folder is missing or not writable, or it is a folder itself.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FeatvizError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise FeatvizError(f"cannot write {str(path)!r}: it is not writable")
    return path


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write a file atomically: to a temporary name, which is then renamed.

    Raises
    ------
    FeatvizError
        If the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:200]}.{uuid.uuid4().hex[:8]}")
    try:
        # The kernel applies the process's umask to the mode.
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise FeatvizError(f"cannot write {str(path)!r}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path
