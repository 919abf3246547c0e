"""Render the batches of an atlas in this process or in local worker processes."""

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

from featviz.atlases.batch_renderer import AtlasJob, BatchRenderer, Row
from featviz.atlases.plan import PlannedImage
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.optim.callbacks import Callback, Step

Batch: TypeAlias = tuple[PlannedImage, ...]
#: Maximum number of consecutive worker deaths without a finished batch.
PATIENCE = 3
#: Seconds between asking a worker to end and killing it.
GRACE = 5.0


class StartError(FeatvizError):
    """A worker cannot start, for a reason that applies to all workers."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason if reason.startswith("a worker") else _MESSAGE.format(reason))


_MESSAGE = (
    "a worker cannot start: {}; a network defined in a script or notebook must be importable, "
    "and a script needs if __name__ == '__main__'"
)


def inline(
    job: AtlasJob,
    batches: Sequence[Batch],
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
) -> Iterator[list[Row]]:
    """Render the batches in this process, one after the other."""
    render = BatchRenderer(job, callbacks)
    for batch in batches:
        yield render(batch)


def processes(job: AtlasJob, batches: Sequence[Batch], workers: int) -> Iterator[list[Row]]:
    """Render the batches in ``workers`` local processes, repeating those of workers that died.

    Raises
    ------
    FeatvizError
        If the network cannot be sent to another process, or workers cannot start or keep dying;
        after all other batches, if a batch failed.
    """
    device = place(job)
    remaining = dict(enumerate(batches))
    errors: list[FeatvizError] = []
    deaths, any_finished = 0, False
    with tempfile.TemporaryDirectory(prefix="featviz-", ignore_cleanup_errors=True) as folder:
        # The new processes get a path, not the network itself: if a process dies before it has read
        # a long message from its pipe, the sender blocks forever.
        job_path = str(Path(folder, "network"))
        _write(job_path, pack(job))
        while remaining:
            pool = _pool(job_path, min(workers, len(remaining)), device)
            running: dict[Future[list[Row]], int] = {}
            queue = list(remaining)
            broken = False
            try:
                while running or (queue and not broken):
                    # Submit few at a time: batches in a pool that breaks are lost.
                    while queue and not broken and len(running) < 2 * workers:
                        try:
                            future = pool.submit(_render_batch, remaining[queue[0]])
                        except BrokenProcessPool:
                            broken = True
                        else:
                            running[future] = queue.pop(0)
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    # Yield finished batches before handling failed ones.
                    for future in sorted(done, key=lambda f: f.exception() is not None):
                        index = running.pop(future)
                        try:
                            rows = future.result()
                        except BrokenProcessPool:
                            broken = True
                            remaining[index] = remaining.pop(
                                index
                            )  # move to the end: it may be what kills workers
                        except StartError:
                            raise
                        except FeatvizError as error:
                            errors.append(error)
                            del remaining[index]
                        else:
                            del remaining[index]
                            deaths, any_finished = 0, True
                            yield rows
            finally:
                codes = _terminate(pool)
            if not broken:
                continue
            deaths += 1
            exit_codes = [code for code in codes if code > 0]
            if exit_codes and not any_finished:  # not killed by a signal: it would happen again
                raise StartError(f"it ended with status {exit_codes[0]}")
            if deaths > PATIENCE:
                raise FeatvizError(
                    f"workers died {deaths} times in a row, perhaps because memory ran out: use "
                    "fewer --workers"
                )
            warnings.warn("a worker died; its images are rendered again", FeatvizWarning, 2)
    settle(errors, len(batches))


def settle(errors: Sequence[FeatvizError], total: int) -> None:
    """Raise :class:`FeatvizError` if batches failed, with the first reason."""
    if errors:
        raise FeatvizError(f"{len(errors)} of {total} batches failed: {errors[0]}") from errors[0]


def pack(job: AtlasJob) -> bytes:
    """Pickle the job with the network on the CPU; each worker moves it to its own device.

    Raises
    ------
    FeatvizError
        If the network cannot be pickled.
    """
    try:  # a copy without the resolved plan, which each worker resolves itself
        model = job.model.on(torch.device("cpu"))
        return pickle.dumps(dataclasses.replace(job, model=model))
    except Exception as error:  # a network's own __getstate__ and __reduce__ may raise anything
        reason = one_line(error)
        raise FeatvizError(f"the network cannot be sent to workers: {reason}") from error


def place(job: AtlasJob) -> str:
    """Return the device of local workers, as text; ``cuda`` distributes them over all GPUs.

    If no device is given, a network on a GPU other than the first was put there deliberately, so
    that the workers use that GPU; the first one is merely PyTorch's default.
    """
    requested, current = job.device, job.network.device
    if current.type != "cuda":
        return str(current)
    if requested is None:
        index = current.index or None
    else:
        index = None if requested == "auto" else torch.device(requested).index
    return "cuda" if index is None else f"cuda:{index}"


def one_line(error: BaseException, most: int = 160) -> str:
    """Return an error's message in one line, with its type unless it is featviz's own."""
    text = " ".join(str(error).split())
    if isinstance(error, FeatvizError):
        return text
    name = type(error).__name__
    return f"{name}: {text}"[:most] if text else name


def _write(path: str, content: bytes) -> None:
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        reason = one_line(error)
        raise FeatvizError(f"the network cannot be sent to workers: {reason}") from error


def _pool(job_path: str, workers: int, device: str) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # CUDA and threads do not survive a fork
    numbers = context.SimpleQueue()
    for number in range(workers):
        numbers.put(number)
    threads = max(1, torch.get_num_threads() // workers)
    return ProcessPoolExecutor(workers, context, _start, (job_path, numbers, threads, device))


_renderer: BatchRenderer | None = None
_start_error: str | None = None


def _start(job_path: str, numbers: Any, threads: int, device: str) -> None:
    """Initialize this process as a worker, with its share of the cores and of the GPUs."""
    global _renderer, _start_error
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends its workers
    threading.Thread(target=_exit_with_parent, args=(job_path,), daemon=True).start()
    try:
        torch.set_num_threads(threads)
        with Path(job_path).open("rb") as file:
            job: AtlasJob = pickle.load(file)  # noqa: S301 - from our own parent
        if device == "cuda":
            device = f"cuda:{numbers.get() % torch.cuda.device_count()}"
        _renderer = BatchRenderer(job.on(device))
    except (Exception, SystemExit) as error:  # raised here, it would look like a crash
        _start_error = one_line(error)


def _exit_with_parent(job_path: str) -> None:
    """Exit this process when its parent has ended, for whatever reason."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        shutil.rmtree(Path(job_path).parent, ignore_errors=True)
        os._exit(1)


def _render_batch(batch: Batch) -> list[Row]:
    if _renderer is None:
        raise StartError(_start_error or "the network was not received")
    try:
        return _renderer(batch)
    except Exception as error:  # not every exception can be pickled
        raise FeatvizError(one_line(error)) from error


def _terminate(pool: ProcessPoolExecutor) -> list[int]:
    """Terminate a pool immediately; return the exit codes of its processes."""
    workers = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in workers:
        with contextlib.suppress(OSError, ValueError):
            process.terminate()
    deadline = time.monotonic() + GRACE
    for process in workers:
        process.join(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(OSError, ValueError):
            process.kill()  # a stopped process only reacts to SIGKILL
        process.join(GRACE)
    return [process.exitcode or 0 for process in workers]
