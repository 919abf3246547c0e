"""Atomic file writing."""

from __future__ import annotations

import os
import stat
import uuid
from pathlib import Path

from featviz.errors import FeatvizError, shorten

#: Longest file name of the common file systems, in bytes.
_LONGEST_NAME = 255


def check_writable(path: str | Path) -> Path:
    """Return ``path`` if a file can be written there; raise before a long computation otherwise.

    Raises
    ------
    FeatvizError
        If its folder is missing or not writable, or it is a folder itself.
    """
    if not os.fspath(path):
        raise FeatvizError("cannot write to an empty path: name a file")
    path = Path(path)
    if "\0" in str(path):
        raise FeatvizError("a path cannot have a null character")
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise FeatvizError(f"cannot write {shorten(repr(str(path)))}: its name is too long")
    if not path.parent.is_dir():
        raise FeatvizError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise FeatvizError(f"cannot write {str(path)!r}: it is not writable")
    try:  # permissions do not tell of special file systems
        temporary = _temporary(path)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        temporary.unlink()
    except OSError as error:
        shown = shorten(repr(str(path)))
        raise FeatvizError(f"cannot write {shown}: {error.strerror}") from error
    return path


def check_readable(path: str | Path) -> Path:
    """Return ``path`` if it is a regular file: a pipe or device could block for ever.

    Raises
    ------
    FeatvizError
        If it is missing, or not a regular file.
    """
    if not os.fspath(path):
        raise FeatvizError("cannot read an empty path: name a file")
    shown = shorten(repr(str(path)))
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise FeatvizError(f"cannot read {shown}: {error.strerror}") from error
    except ValueError as error:
        raise FeatvizError(f"cannot read {shown}: {error}") from error
    if not stat.S_ISREG(mode):
        what = "it is a folder" if stat.S_ISDIR(mode) else "it is not a regular file"
        raise FeatvizError(f"cannot read {shown}: {what}")
    return Path(path)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex[:8]}")


def make_folder(path: str | Path) -> Path:
    """Make a folder and those above it, unless they exist.

    Raises
    ------
    FeatvizError
        If it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FeatvizError(f"cannot make folder {str(path)!r}: {reason}") from error
    return Path(path)


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write a file atomically: to a temporary name, which is then renamed.

    Raises
    ------
    FeatvizError
        If the file cannot be written.
    """
    path = Path(path)
    temporary = _temporary(path)
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
