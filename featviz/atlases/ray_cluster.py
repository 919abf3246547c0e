"""Do the batches of an atlas on a Ray cluster."""

from __future__ import annotations

import contextlib
import math
import pickle
import re
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from featviz.atlases.local_workers import PATIENCE, Batch, StartError, one_line, pack, settle
from featviz.atlases.painter import Brief, Painter, Row
from featviz.errors import FeatvizError

#: Seconds for a cluster to start a first worker: it may have to start a machine for it.
START = 300.0


class _Worker:
    """An actor that holds the network on its device; ``device`` is ``None`` for the best it has."""

    def __init__(self, parcel: Sequence[Any], threads: int, device: str | None) -> None:
        self.parcel, self.threads, self.device = parcel, threads, device
        self.painter: Painter | None = None

    def ready(self) -> None:
        """Take the network.

        Raises
        ------
        StartError
            If that cannot be done.
        """
        import ray

        try:
            torch.set_num_threads(self.threads)
            brief: Brief = pickle.loads(ray.get(self.parcel[0]))  # noqa: S301 - from the driver
            best = "cuda" if torch.cuda.is_available() else "cpu"
            self.painter = Painter(brief.on(self.device or best))
        except ray.exceptions.RayError:
            raise
        except Exception as error:
            raise StartError(one_line(error)) from error

    def work(self, batch: Batch) -> list[Row]:
        """Do a batch.

        Raises
        ------
        FeatvizError
            If that cannot be done, whatever the reason: not every error can be sent.
        """
        if self.painter is None:  # started again after a death
            self.ready()
        assert self.painter is not None
        try:
            return self.painter(batch)
        except Exception as error:
            raise FeatvizError(one_line(error)) from error


def on_ray(
    brief: Brief, batches: Sequence[Batch], address: str, workers: int | None = None
) -> Iterator[list[Row]]:
    """Do the batches on the cluster at ``address``: ``auto``, ``host:6379``, ``ray://…``.

    One actor for each GPU, or each core where there is none, or as many as ``workers``; those that
    the cluster has no room for yet join when it has. Ray starts an actor that died again and
    repeats its batch.

    Raises
    ------
    FeatvizError
        If Ray is missing, the cluster cannot be reached, starts no worker, or workers keep dying;
        and when all else is done, if there are batches that cannot be.
    """
    try:
        import ray
    except ImportError as error:
        raise FeatvizError("--ray needs Ray: pip install 'featviz[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        knocked = _knock(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            reason = one_line(error)
            if knocked and isinstance(error, ConnectionError):
                reason += "; one that asks for a token needs RAY_AUTH_MODE=token"
            raise FeatvizError(f"no Ray cluster at {address!r}: {reason}") from error
    try:
        yield from _spread(ray, brief, batches, workers)
    except ray.exceptions.RayError as error:
        raise FeatvizError(f"the Ray cluster failed: {one_line(error)}") from None
    finally:
        if ours:
            ray.shutdown()


def _knock(address: str) -> bool:
    """Return whether somebody listens, where that can be asked; Ray takes minutes to say no.

    Raises
    ------
    FeatvizError
        If nobody does.
    """
    found = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address)
    if found is None:
        return False
    try:
        socket.create_connection((found[1], int(found[2])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise FeatvizError(f"no Ray cluster at {address!r}: {error}") from error
    return True


class _Share(NamedTuple):
    """What is asked of a cluster: ``workers`` with a core or a GPU each."""

    workers: int
    unit: str  # "CPU" or "GPU", as Ray calls them
    threads: int
    device: str | None

    def denied(self, ray: Any) -> FeatvizError:
        """Return the error that nothing of it was given."""
        have, free = ray.cluster_resources(), ray.available_resources()
        text = ", ".join(
            f"{have.get(unit, 0):g} {unit}s ({free.get(unit, 0):g} of them free)"
            for unit in ("CPU", "GPU")
        )
        return FeatvizError(
            f"no worker could start on the Ray cluster in {START:g} s: it has {text}, and "
            f"{self.workers} workers were to have 1 {self.unit} each"
        )


def _share(ray: Any, brief: Brief, batches: int, workers: int | None) -> _Share:
    have = ray.cluster_resources()
    gpus = int(have.get("GPU", 0))
    given = brief.device
    kind = None if given is None or given == "auto" else torch.device(given).type
    if kind == "cuda" and not gpus:
        raise FeatvizError(f"device is {str(given)!r}, and the Ray cluster has no GPU")
    unit = "GPU" if gpus and kind in (None, "cuda") else "CPU"
    slots = max(1, int(have.get(unit, 0)))
    count = min(workers or slots, slots, batches)
    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    cores = [number for number in cores if number] or [1]
    threads = max(1, min(cores) // math.ceil(count / len(cores)))
    return _Share(count, unit, threads, kind or (None if gpus else "cpu"))


def _spread(
    ray: Any, brief: Brief, batches: Sequence[Batch], workers: int | None
) -> Iterator[list[Row]]:
    share = _share(ray, brief, len(batches), workers)
    parcel = ray.put(pack(brief))
    worker = ray.remote(
        max_restarts=PATIENCE,
        max_task_retries=PATIENCE,
        scheduling_strategy="SPREAD",
        **{f"num_{share.unit.lower()}s": 1},
    )(_Worker)
    starting: dict[Any, Any] = {}
    running: dict[Any, tuple[Any, int]] = {}
    idle: list[Any] = []

    def launch() -> None:
        # In a list: an actor takes it when it wants it, and can do so again after a death.
        actor = worker.remote([parcel], share.threads, share.device)
        starting[actor.ready.remote()] = actor

    queue = list(range(len(batches)))
    failed: list[FeatvizError] = []
    deaths = 0
    try:
        for _ in range(share.workers):
            launch()
        until = time.monotonic() + START
        while queue or running:
            while queue and idle:
                actor, index = idle.pop(), queue.pop(0)
                running[actor.work.remote(batches[index])] = actor, index
            # Workers that have not been placed are no reason to wait while others work.
            limit = None if running else max(0.0, until - time.monotonic())
            done, _ = ray.wait([*starting, *running], num_returns=1, timeout=limit)
            if not done:
                raise share.denied(ray)
            begins = done[0] in starting
            actor, index = (starting.pop(done[0]), -1) if begins else running.pop(done[0])
            try:
                rows = ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                reason = _plain(error)
                if begins or isinstance(reason, StartError):
                    yield from _made(ray, running)
                    raise reason from None
                failed.append(reason)
                idle.append(actor)
            except ray.exceptions.RayError as error:
                _kill(ray, actor)
                if not begins:
                    deaths += 1
                    queue.append(index)  # last: it may be what kills them
                    launch()
                    until = time.monotonic() + START
                if deaths > PATIENCE or not (starting or idle or running):
                    yield from _made(ray, running)
                    reason = FeatvizError(f"workers on the cluster keep dying: {one_line(error)}")
                    raise reason from None
            else:
                idle.append(actor)
                if not begins:
                    deaths = 0
                    yield rows
        settle(failed, len(batches))
    finally:
        for actor in [*starting.values(), *idle, *(actor for actor, _ in running.values())]:
            _kill(ray, actor)


def _made(ray: Any, running: dict[Any, Any]) -> Iterator[list[Row]]:
    """Yield what has been made and not been fetched."""
    done = ray.wait([*running], num_returns=len(running), timeout=0)[0] if running else []
    for ref in done:
        try:
            rows = ray.get(ref)
        except Exception:  # noqa: S112 - another error is about to be raised
            continue
        yield rows


def _plain(error: Any) -> FeatvizError:
    """Return what a worker raised, in one line and without Ray's wrapping."""
    cause = error.cause
    return cause if isinstance(cause, FeatvizError) else FeatvizError(one_line(cause or error))


def _kill(ray: Any, actor: Any) -> None:
    with contextlib.suppress(Exception):  # it is dead, or the cluster is gone
        ray.kill(actor)
