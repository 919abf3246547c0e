"""The files of an atlas, in a folder or behind any URL that fsspec knows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import fsspec

from featviz.errors import FeatvizError
from featviz.io.files import write_bytes

#: Seconds after which a half-written file is nobody's.
STALE = 3600


class Files:
    """Whole files below a root; each is written so that it appears whole or not at all.

    In a folder that is a file beside its place, renamed; an object store puts objects whole. Each
    method raises :class:`FeatvizError`, with the path, for what the file system refuses.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        with self._tried("open", self.url):
            self.system, root = fsspec.core.url_to_fs(self.url)
        self.root = root.rstrip("/")
        self.local = "file" in _protocols(self.system)

    @staticmethod
    @contextlib.contextmanager
    def _tried(verb: str, path: str) -> Iterator[None]:
        """Say in one line what a file system refused; clouds have exceptions of their own."""
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
        """Return the names and sizes of the files in and below ``folder``, sorted."""
        with self._tried("list", self.url):
            try:
                self.system.invalidate_cache()
                found = self.system.find(self.path(folder), detail=True)
            except FileNotFoundError:
                return {}
        start = len(self.system._strip_protocol(self.root)) + 1
        named = {path[start:]: int(info["size"] or 0) for path, info in found.items()}
        return {
            name: size
            for name, size in sorted(named.items())
            if name.endswith(ending) and not PurePosixPath(name).name.startswith(".")
        }

    def read(self, name: str) -> bytes | None:
        """Return what a file holds; None if there is no such file."""
        with self._tried("read", self.path(name)):
            try:
                content: bytes = self.system.cat_file(self.path(name))
            except FileNotFoundError:
                return None
        return content

    def open(self, name: str) -> Any:
        """Open a file to read parts of it; :class:`FileNotFoundError` if there is none."""
        with self._tried("read", self.path(name)):
            return self.system.open(self.path(name), "rb")

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        path = self.path(name)
        with self._tried("write", path):
            if self.local:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, content)
            else:
                self.system.pipe_file(path, content)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._tried("remove", self.path(name)), contextlib.suppress(FileNotFoundError):
            self.system.rm_file(self.path(name))

    def set_aside(self, name: str) -> str:
        """Rename a file so that nothing takes it for one of the atlas; return its new name."""
        aside = f"{name}.damaged"
        with self._tried("rename", self.path(name)), contextlib.suppress(FileNotFoundError):
            self.system.mv(self.path(name), self.path(aside))
        return aside

    def sweep(self) -> None:
        """Remove what a killed run left half written, unless another may be writing it now."""
        if not self.local:
            return
        old = time.time() - STALE
        for path in Path(self.root).glob("**/.*"):
            ours = any(f".{ending}." in path.name for ending in ("parquet", "json"))
            with contextlib.suppress(OSError):
                if ours and path.is_file() and path.stat().st_mtime < old:
                    path.unlink()


def folder_of(layer: str) -> str:
    """Return a folder's name for a layer: readable, safe, different for different layers."""
    name = quote(layer, safe="")
    return f"%2E{name[1:]}" if name.startswith(".") else name


def _protocols(system: Any) -> tuple[str, ...]:
    kind = system.protocol
    return (kind,) if isinstance(kind, str) else tuple(kind)
