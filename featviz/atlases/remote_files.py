"""The files of an atlas, in a folder or at any URL that fsspec supports."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import fsspec

from featviz.errors import FeatvizError
from featviz.io.files import make_folder, write_bytes

#: Seconds after which a partly written file is considered abandoned.
STALE = 3600


class Files:
    """Files below a root, written atomically.

    In a folder, a temporary file is renamed; object stores write objects atomically anyway. Every
    method raises :class:`FeatvizError`, with the path, for errors of the file system.
    """

    def __init__(self, url: str | Path) -> None:
        self.url: str = str(url)
        if not self.url or "\0" in self.url:
            raise FeatvizError("name the folder or URL of the atlas: the path is empty")
        with self._translate_errors("open", self.url):
            self.system, root = fsspec.core.url_to_fs(self.url)
        self.root: str = root.rstrip("/")
        self.local: bool = "file" in _protocols(self.system)

    @staticmethod
    @contextlib.contextmanager
    def _translate_errors(verb: str, path: str) -> Iterator[None]:
        """Raise errors of the file system as one line; cloud stores have their own exceptions."""
        try:
            yield
        except (FeatvizError, FileNotFoundError):
            raise
        except Exception as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:160]
            raise FeatvizError(f"cannot {verb} {path!r}: {reason}") from error

    def path(self, name: str) -> str:
        """Return the path of a file on its file system."""
        return f"{self.root}/{name}"

    def list(self, folder: str, ending: str) -> dict[str, int]:
        """Return the names and sizes of the files in ``folder`` and its subfolders, sorted."""
        with self._translate_errors("list", self.url):
            try:
                self.system.invalidate_cache()
                infos = self.system.find(self.path(folder), detail=True)
            except FileNotFoundError:
                return {}
        start = len(self.system._strip_protocol(self.root)) + 1
        sizes = {path[start:]: int(info["size"] or 0) for path, info in infos.items()}
        return {
            name: size
            for name, size in sorted(sizes.items())
            if name.endswith(ending) and not PurePosixPath(name).name.startswith(".")
        }

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if it does not exist."""
        with self._translate_errors("read", self.path(name)):
            try:
                content: bytes = self.system.cat_file(self.path(name))
            except FileNotFoundError:
                return None
        return content

    def open(self, name: str) -> Any:
        """Open a file for partial reads; raise :class:`FileNotFoundError` if it does not exist."""
        with self._translate_errors("read", self.path(name)):
            return self.system.open(self.path(name), "rb")

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically."""
        path = self.path(name)
        with self._translate_errors("write", path):
            if self.local:
                make_folder(Path(path).parent)
                write_bytes(path, content)
            else:
                self.system.pipe_file(path, content)

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        with (
            self._translate_errors("remove", self.path(name)),
            contextlib.suppress(FileNotFoundError),
        ):
            self.system.rm_file(self.path(name))

    def set_aside(self, name: str) -> str:
        """Rename a damaged file so that it is no longer part of the atlas; return its new name."""
        new_name = f"{name}.damaged"
        with (
            self._translate_errors("rename", self.path(name)),
            contextlib.suppress(FileNotFoundError),
        ):
            self.system.mv(self.path(name), self.path(new_name))
        return new_name

    def sweep(self) -> None:
        """Remove temporary files of killed runs, unless another run may be writing them."""
        if not self.local:
            return
        oldest = time.time() - STALE
        for path in Path(self.root).glob("**/.*"):
            is_temporary = any(f".{ending}." in path.name for ending in ("parquet", "json"))
            with contextlib.suppress(OSError):
                if is_temporary and path.is_file() and path.stat().st_mtime < oldest:
                    path.unlink()


def folder_of(layer: str) -> str:
    """Return a readable, portable and unique folder name for a layer."""
    name = quote(layer, safe="")
    return f"%2E{name[1:]}" if name.startswith(".") else name


def _protocols(system: Any) -> tuple[str, ...]:
    protocol = system.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
