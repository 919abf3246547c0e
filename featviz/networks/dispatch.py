"""The base of the modes that watch a network's operations."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):
    """A mode that does not prepare itself for ``torch.compile``.

    By default torch imports its compiler, which takes seconds, when a mode sees its first
    operation. Nothing is compiled while one of these is active.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
