"""Checksums of the shards of an atlas, in files of their own beside them."""

from __future__ import annotations

import hashlib

from featviz.atlases.remote_files import Files


def record(files: Files, name: str, content: bytes) -> None:
    """Store the checksum of a shard that is about to be written.

    The checksum of the content that it replaces stays valid: a run that is killed between the two
    files leaves either.
    """
    before = (_read(files, name) or [])[-1:]
    lines = list(dict.fromkeys([*before, _digest(content)]))
    files.write(_place(name), "\n".join(lines).encode())


def agrees(files: Files, name: str, content: bytes) -> bool:
    """Return whether a shard is what was written; an older atlas without checksums always is."""
    known = _read(files, name)
    return known is None or _digest(content) in known


def _read(files: Files, name: str) -> list[str] | None:
    text = files.read(_place(name))
    return None if text is None else text.decode(errors="replace").split()


def _place(name: str) -> str:
    return f"checksums/{name.removeprefix('pictures/').removesuffix('.parquet')}.blake2b"


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
