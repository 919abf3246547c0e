"""Ctrl-C and SIGTERM: the first one saves what is done, a later one ends the process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

#: Signals that follow the first one so soon are the same wish: a key held down, or a batch system
#: that signals a process and its group.
_TOGETHER = 0.5


class Interrupted(KeyboardInterrupt):
    """Raised by the first signal.

    A plain KeyboardInterrupt that crosses an ``exec`` of text, of which dataclasses are made, lets
    Python end the process by SIGINT later, though it was handled.
    """


@contextlib.contextmanager
def interruptible(*, ends: bool = False) -> Iterator[list[int]]:
    """Raise Interrupted at the first SIGINT or SIGTERM, and note the signal in the result.

    A second one, more than half a second later, ends the process at once with the status of a
    shell, 128 plus the signal's number: files are renamed into place when they are whole, so that
    none is left half-written under its name. A signal that is ignored, as SIGINT is in a shell's
    background jobs, stays so. In other threads than the main one nothing happens.

    With ``ends`` the process ends after the context: handlers stay, so that no signal meets an
    interpreter that is shutting down, which would print tracebacks.
    """
    signals: list[int] = []
    first = 0.0
    is_over = False

    def interrupt(number: int, _: object) -> None:
        nonlocal first
        now = time.monotonic()
        signals.append(number)
        if len(signals) == 1 and is_over:
            os._exit(128 + number)
        if len(signals) == 1:
            first = now
            raise Interrupted
        if now - first > _TOGETHER:
            os.write(2, b"featviz: interrupted again: ended at once\n")
            os._exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, interrupt)
    try:
        yield signals
    finally:
        is_over = True
        for number, handler in () if ends else previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
