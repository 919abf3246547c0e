"""Who does the batches: this process, local processes, or a Ray cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeAlias

import torch

from featviz.atlases.painter import Brief, Painter, Row
from featviz.atlases.plan import Picture
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.optim.callbacks import Callback, Step

Batch: TypeAlias = tuple[Picture, ...]
#: How often in a row workers may die without a batch being finished.
PATIENCE = 3
#: Seconds that a worker has to end when it is asked to.
GRACE = 5.0


class StartError(FeatvizError):
    """A worker that cannot start, as no other would either; it holds the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason if reason.startswith("a worker") else _CANNOT.format(reason))


_CANNOT = (
    "a worker cannot start: {}; a network defined in a script or notebook must be importable, "
    "and a script needs if __name__ == '__main__'"
)


def inline(
    brief: Brief,
    batches: Sequence[Batch],
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
) -> Iterator[list[Row]]:
    """Do the batches here, one after the other."""
    paint = Painter(brief, callbacks)
    for batch in batches:
        yield paint(batch)


def processes(brief: Brief, batches: Sequence[Batch], workers: int) -> Iterator[list[Row]]:
    """Do the batches in ``workers`` local processes; what a dead one had is done again.

    Raises
    ------
    FeatvizError
        If the network cannot be sent to another process, workers cannot start or keep dying; and
        when all else is done, if there are batches that cannot be.
    """
    device = place(brief)
    left = dict(enumerate(batches))
    failed: list[FeatvizError] = []
    deaths, begun = 0, False
    with tempfile.TemporaryDirectory(prefix="featviz-", ignore_cleanup_errors=True) as folder:
        # A path goes through the pipe to a new process, not the network: where that process dies
        # before it has read a long message, who sends it waits for ever.
        parcel = str(Path(folder, "network"))
        _write(parcel, pack(brief))
        while left:
            pool = _pool(parcel, min(workers, len(left)), device)
            waiting: dict[Future[list[Row]], int] = {}
            queue = list(left)
            broken = False
            try:
                while waiting or (queue and not broken):
                    # Few at a time: what lies in a pool that breaks is lost with it.
                    while queue and not broken and len(waiting) < 2 * workers:
                        try:
                            future = pool.submit(_work, left[queue[0]])
                        except BrokenProcessPool:
                            broken = True
                        else:
                            waiting[future] = queue.pop(0)
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    # What has been made comes before what is said of the rest.
                    for future in sorted(done, key=lambda f: f.exception() is not None):
                        index = waiting.pop(future)
                        try:
                            rows = future.result()
                        except BrokenProcessPool:
                            broken = True
                            left[index] = left.pop(index)  # last: it may be what kills them
                        except StartError:
                            raise
                        except FeatvizError as error:
                            failed.append(error)
                            del left[index]
                        else:
                            del left[index]
                            deaths, begun = 0, True
                            yield rows
            finally:
                codes = _end(pool)
            if not broken:
                continue
            deaths += 1
            ended = [code for code in codes if code > 0]
            if ended and not begun:  # it has not been killed: it will end so each time
                raise StartError(f"it ended with status {ended[0]}")
            if deaths > PATIENCE:
                raise FeatvizError(
                    f"workers died {deaths} times in a row, as they do where memory does not "
                    "suffice: take fewer --workers"
                )
            warnings.warn("a worker died; its images are made again", FeatvizWarning, 2)
    settle(failed, len(batches))


def settle(failed: Sequence[FeatvizError], total: int) -> None:
    """Raise :class:`FeatvizError` if batches failed, with the reason of the first."""
    if failed:
        raise FeatvizError(f"{len(failed)} of {total} batches failed: {failed[0]}") from failed[0]


def pack(brief: Brief) -> bytes:
    """Return the brief as bytes, with the network on the CPU, from where each worker takes it.

    Raises
    ------
    FeatvizError
        If the network cannot be sent.
    """
    try:  # a copy without the plan, which each resolves
        model = brief.model.on(torch.device("cpu"))
        return pickle.dumps(dataclasses.replace(brief, model=model))
    except Exception as error:  # whatever a network's own __getstate__ and __reduce__ raise
        reason = one_line(error)
        raise FeatvizError(f"the network cannot be sent to workers: {reason}") from error


def place(brief: Brief) -> str:
    """Return where local workers work, as text; ``cuda`` is on each of the GPUs in turn.

    ``None`` of :func:`featviz.atlas` is where the network is: a GPU other than the first has been
    chosen, and the first is where a network goes whose owner said nothing.
    """
    given, here = brief.device, brief.home.device
    if here.type != "cuda":
        return str(here)
    if given is None:
        index = here.index or None
    else:
        index = None if given == "auto" else torch.device(given).index
    return "cuda" if index is None else f"cuda:{index}"


def one_line(error: BaseException, most: int = 160) -> str:
    """Return what an error says in one line; its kind, too, unless it is one of ours."""
    text = " ".join(str(error).split())
    if isinstance(error, FeatvizError):
        return text
    name = type(error).__name__
    return f"{name}: {text}"[:most] if text else name


def _write(path: str, parcel: bytes) -> None:
    try:
        Path(path).write_bytes(parcel)
    except OSError as error:
        reason = one_line(error)
        raise FeatvizError(f"the network cannot be sent to workers: {reason}") from error


def _pool(parcel: str, workers: int, device: str) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # CUDA and threads do not survive a fork
    numbers = context.SimpleQueue()
    for number in range(workers):
        numbers.put(number)
    threads = max(1, torch.get_num_threads() // workers)
    return ProcessPoolExecutor(workers, context, _start, (parcel, numbers, threads, device))


_painter: Painter | None = None
_fault: str | None = None


def _start(parcel: str, numbers: Any, threads: int, device: str) -> None:
    """Make this process a worker, with its share of the cores, and a GPU in turn."""
    global _painter, _fault
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is asked, and ends us
    threading.Thread(target=_follow, args=(parcel,), daemon=True).start()
    try:
        torch.set_num_threads(threads)
        with Path(parcel).open("rb") as file:
            brief: Brief = pickle.load(file)  # noqa: S301 - from our own parent
        if device == "cuda":
            device = f"cuda:{numbers.get() % torch.cuda.device_count()}"
        _painter = Painter(brief.on(device))
    except (Exception, SystemExit) as error:  # raised here, it would look like a death
        _fault = one_line(error)


def _follow(parcel: str) -> None:
    """End this process when its parent has ended, however that came about."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        shutil.rmtree(Path(parcel).parent, ignore_errors=True)
        os._exit(1)


def _work(batch: Batch) -> list[Row]:
    if _painter is None:
        raise StartError(_fault or "no network came")
    try:
        return _painter(batch)
    except Exception as error:  # not every error can be sent
        raise FeatvizError(one_line(error)) from error


def _end(pool: ProcessPoolExecutor) -> list[int]:
    """End a pool now, with what it is doing; return the exit codes of its processes."""
    running = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in running:
        with contextlib.suppress(OSError, ValueError):
            process.terminate()
    until = time.monotonic() + GRACE
    for process in running:
        process.join(max(0.0, until - time.monotonic()))
        with contextlib.suppress(OSError, ValueError):
            process.kill()  # a stopped one hears nothing else
        process.join(GRACE)
    return [process.exitcode or 0 for process in running]
