"""Do the batches of an atlas on a Ray cluster."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from featviz.atlases.paint import Brief, Painter, Row
from featviz.atlases.runners import PATIENCE, Batch, pack
from featviz.errors import FeatvizError


class _Worker:
    """An actor that holds the network on its device."""

    def __init__(self, parcel: bytes, threads: int) -> None:
        import pickle

        torch.set_num_threads(threads)
        brief: Brief = pickle.loads(parcel)  # noqa: S301 - from the driver
        self.paint = Painter(brief.on("cuda") if torch.cuda.is_available() else brief)

    def work(self, batch: Batch) -> list[Row]:
        return self.paint(batch)


def on_ray(
    brief: Brief, batches: Sequence[Batch], address: str, workers: int | None = None
) -> Iterator[list[Row]]:
    """Do the batches on the cluster at ``address``: ``auto``, ``host:6379``, ``ray://…``.

    One actor for each GPU, or each core where there is none, or as many as ``workers``. Ray starts
    an actor that died again and repeats its batch.

    Raises
    ------
    FeatvizError
        If Ray is missing, the cluster cannot be reached, or a batch fails again and again.
    """
    try:
        import ray
    except ImportError as error:
        raise FeatvizError("--ray needs Ray: pip install 'featviz[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        _knock(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())[:160]
            raise FeatvizError(f"no Ray cluster at {address!r}: {reason}") from error
    try:
        yield from _spread(ray, brief, batches, workers)
    finally:
        if ours:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raise :class:`FeatvizError` at once where nobody listens, which Ray takes minutes to say."""
    found = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address)
    if found is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise FeatvizError(f"no Ray cluster at {address!r}: {error}") from error


def _spread(
    ray: Any, brief: Brief, batches: Sequence[Batch], workers: int | None
) -> Iterator[list[Row]]:
    have = ray.cluster_resources()
    gpus, cores = int(have.get("GPU", 0)), max(1, int(have.get("CPU", 1)))
    count = min(workers or gpus or cores, len(batches))
    share = {"num_gpus": 1} if gpus else {"num_cpus": max(1, cores // count)}
    worker = ray.remote(max_restarts=-1, max_task_retries=PATIENCE, **share)(_Worker)
    parcel = ray.put(pack(brief))
    actors = [worker.remote(parcel, max(1, cores // count)) for _ in range(count)]
    queue = list(batches)
    running: dict[Any, Any] = {}
    while queue or running:
        idle = [actor for actor in actors if actor not in running.values()]
        for actor in idle[: len(queue)]:
            running[actor.work.remote(queue.pop(0))] = actor
        [ready], _ = ray.wait(list(running), num_returns=1)
        del running[ready]
        try:
            yield ray.get(ready)
        except ray.exceptions.RayActorError as error:
            raise FeatvizError(f"workers on the cluster keep dying: {error}") from error
