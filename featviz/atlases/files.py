"""The files of an atlas, in a folder or behind any URL that fsspec knows."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import fsspec

from featviz.errors import FeatvizError
from featviz.images import write_bytes

#: Seconds after which a half-written file is nobody's.
STALE = 3600


class Files:
    """Whole files below a root; each is written so that it appears whole or not at all.

    In a folder that is a file beside its place, renamed; an object store puts objects whole.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        try:
            self.system, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise FeatvizError(f"cannot open {self.url!r}: {error}") from error
        self.root = root.rstrip("/")
        self.local = "file" in _protocols(self.system)

    def path(self, name: str) -> str:
        """Return the path of a file on its file system."""
        return f"{self.root}/{name}"

    def list(self, folder: str, ending: str) -> dict[str, int]:
        """Return the names and sizes of the files in and below ``folder``, sorted."""
        try:
            self.system.invalidate_cache()
            found = self.system.find(self.path(folder), detail=True)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise FeatvizError(f"cannot list {self.url!r}: {error}") from error
        start = len(self.system._strip_protocol(self.root)) + 1
        named = {path[start:]: int(info["size"] or 0) for path, info in found.items()}
        return {
            name: size
            for name, size in sorted(named.items())
            if name.endswith(ending) and not PurePosixPath(name).name.startswith(".")
        }

    def read(self, name: str) -> bytes | None:
        """Return what a file holds; None if there is no such file."""
        try:
            content: bytes = self.system.cat_file(self.path(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FeatvizError(f"cannot read {self.path(name)!r}: {error}") from error
        return content

    def open(self, name: str) -> Any:
        """Open a file to read parts of it."""
        return self.system.open(self.path(name), "rb")

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        path = self.path(name)
        try:
            if self.local:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, content)
            else:
                self.system.pipe_file(path, content)
        except OSError as error:
            raise FeatvizError(f"cannot write {path!r}: {error.strerror or error}") from error

    def set_aside(self, name: str) -> str:
        """Rename a file so that nothing takes it for one of the atlas; return its new name."""
        aside = f"{name}.damaged"
        self.system.mv(self.path(name), self.path(aside))
        return aside

    def sweep(self) -> None:
        """Remove what a killed run left half written, unless another may be writing it now."""
        if not self.local:
            return
        old = time.time() - STALE
        for path in Path(self.root).glob("**/.*.parquet.*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < old:
                    path.unlink()


def folder_of(layer: str) -> str:
    """Return a folder's name for a layer: readable, safe, different for different layers."""
    name = quote(layer, safe="")
    return f"%2E{name[1:]}" if name.startswith(".") else name


def _protocols(system: Any) -> tuple[str, ...]:
    kind = system.protocol
    return (kind,) if isinstance(kind, str) else tuple(kind)
