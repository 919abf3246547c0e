"""Who does the batches: this process, local processes, or a Ray cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import pickle
import signal
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeAlias

import torch

from featviz.atlases.paint import Brief, Painter, Row
from featviz.atlases.plan import Picture
from featviz.errors import FeatvizError, FeatvizWarning

Batch: TypeAlias = tuple[Picture, ...]
#: How often in a row workers may die without a batch being finished.
PATIENCE = 3


def inline(brief: Brief, batches: Sequence[Batch]) -> Iterator[list[Row]]:
    """Do the batches here, one after the other."""
    paint = Painter(brief)
    for batch in batches:
        yield paint(batch)


def processes(brief: Brief, batches: Sequence[Batch], workers: int) -> Iterator[list[Row]]:
    """Do the batches in ``workers`` local processes; what a dead one had is done again.

    Raises
    ------
    FeatvizError
        If the network cannot be sent to another process, or workers keep dying.
    """
    parcel = pack(brief)
    left = dict(enumerate(batches))
    deaths = 0
    while left:
        pool = _pool(parcel, min(workers, len(left)), brief.job.model.device)
        waiting: dict[Future[list[Row]], int] = {}
        queue = list(left)
        try:
            while queue or waiting:
                # Few at a time: what lies in a pool that breaks is lost with it.
                while queue and len(waiting) < 2 * workers:
                    index = queue.pop(0)
                    waiting[pool.submit(_work, left[index])] = index
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    rows = future.result()
                    del left[waiting.pop(future)]
                    deaths = 0
                    yield rows
        except BrokenProcessPool:
            deaths += 1
            if deaths > PATIENCE:
                raise FeatvizError(
                    f"workers died {deaths} times in a row, as they do where memory does not "
                    "suffice: take fewer --workers"
                ) from None
            warnings.warn("a worker died; its pictures are made again", FeatvizWarning, 2)
        finally:
            _end(pool)


def pack(brief: Brief) -> bytes:
    """Return the brief as bytes.

    Raises
    ------
    FeatvizError
        If the network cannot be sent.
    """
    try:
        return pickle.dumps(dataclasses.replace(brief))  # without the job, which each prepares
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise FeatvizError(f"the network cannot be sent to workers: {error}") from error


def _pool(parcel: bytes, workers: int, device: torch.device) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # CUDA and threads do not survive a fork
    numbers = context.SimpleQueue()
    for number in range(workers):
        numbers.put(number)
    threads = max(1, torch.get_num_threads() // workers)
    kind = device.type
    return ProcessPoolExecutor(workers, context, _start, (parcel, numbers, threads, kind))


_painter: Painter | None = None


def _start(parcel: bytes, numbers: Any, threads: int, kind: str) -> None:
    """Make this process a worker, with its share of the cores, and a GPU in turn."""
    global _painter
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is asked, and ends us
    torch.set_num_threads(threads)
    brief: Brief = pickle.loads(parcel)  # noqa: S301 - from our own parent
    if kind == "cuda":
        brief = brief.on(f"cuda:{numbers.get() % torch.cuda.device_count()}")
    _painter = Painter(brief)


def _work(batch: Batch) -> list[Row]:
    assert _painter is not None
    return _painter(batch)


def _end(pool: ProcessPoolExecutor) -> None:
    """End a pool now, with what it is doing."""
    running = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in running:
        with contextlib.suppress(OSError, ValueError):
            if process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)
    for process in running:
        process.join()
