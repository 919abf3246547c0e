"""Render the batches of an atlas on a Ray cluster."""

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

from featviz.atlases.batch_renderer import AtlasJob, BatchRenderer, Row
from featviz.atlases.local_workers import PATIENCE, Batch, StartError, one_line, pack, settle
from featviz.errors import FeatvizError

#: Seconds for a cluster to start its first worker, for which it may have to start a machine.
START = 300.0


class _Worker:
    """An actor that holds the network on its device; ``None`` means the best one available."""

    def __init__(self, job_reference: Sequence[Any], threads: int, device: str | None) -> None:
        self.job_reference, self.threads, self.device = job_reference, threads, device
        self.renderer: BatchRenderer | None = None

    def ready(self) -> None:
        """Load the network.

        Raises
        ------
        StartError
            If the network cannot be loaded.
        """
        import ray

        try:
            torch.set_num_threads(self.threads)
            job: AtlasJob = pickle.loads(ray.get(self.job_reference[0]))  # noqa: S301 - from the driver
            best = "cuda" if torch.cuda.is_available() else "cpu"
            self.renderer = BatchRenderer(job.on(self.device or best))
        except ray.exceptions.RayError:
            raise
        except Exception as error:
            raise StartError(one_line(error)) from error

    def work(self, batch: Batch) -> list[Row]:
        """Render a batch.

        Raises
        ------
        FeatvizError
            For any failure, since not every exception can be pickled.
        """
        if self.renderer is None:  # restarted after it died
            self.ready()
        assert self.renderer is not None
        try:
            return self.renderer(batch)
        except Exception as error:
            raise FeatvizError(one_line(error)) from error


def on_ray(
    job: AtlasJob, batches: Sequence[Batch], address: str, workers: int | None = None
) -> Iterator[list[Row]]:
    """Render the batches on the cluster at ``address``: ``auto``, ``host:6379``, ``ray://…``.

    One actor is started for each GPU, or for each core if there are no GPUs, but at most
    ``workers``; those that the cluster has no room for yet join later. Ray restarts actors that
    died and repeats their batches.

    Raises
    ------
    FeatvizError
        If Ray is missing, the cluster cannot be reached or starts no worker, or workers keep dying;
        after all other batches, if a batch failed.
    """
    try:
        import ray
    except ImportError as error:
        raise FeatvizError("--ray needs Ray: pip install 'featviz[ray]'") from error
    initialized_here = not ray.is_initialized()
    if initialized_here:
        reachable = _check_reachable(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            reason = one_line(error)
            if reachable and isinstance(error, ConnectionError):
                reason += "; a cluster with token authentication needs RAY_AUTH_MODE=token"
            raise FeatvizError(f"no Ray cluster at {address!r}: {reason}") from error
    try:
        yield from _spread(ray, job, batches, workers)
    except ray.exceptions.RayError as error:
        raise FeatvizError(f"the Ray cluster failed: {one_line(error)}") from None
    finally:
        if initialized_here:
            ray.shutdown()


def _check_reachable(address: str) -> bool:
    """Return whether the address was checked and answers; Ray itself takes minutes to time out.

    Raises
    ------
    FeatvizError
        If the address does not answer.
    """
    match = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address)
    if match is None:
        return False
    try:
        socket.create_connection((match[1], int(match[2])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise FeatvizError(f"no Ray cluster at {address!r}: {error}") from error
    return True


class _Request(NamedTuple):
    """The resources requested from a cluster: ``workers`` with one core or one GPU each."""

    workers: int
    unit: str  # "CPU" or "GPU", as Ray calls them
    threads: int
    device: str | None

    def denied(self, ray: Any) -> FeatvizError:
        """Return the error for a cluster that started no worker."""
        total, free = ray.cluster_resources(), ray.available_resources()
        text = ", ".join(
            f"{total.get(unit, 0):g} {unit}s ({free.get(unit, 0):g} of them free)"
            for unit in ("CPU", "GPU")
        )
        return FeatvizError(
            f"no worker could start on the Ray cluster in {START:g} s: it has {text}, but "
            f"{self.workers} workers need 1 {self.unit} each"
        )


def _plan_workers(ray: Any, job: AtlasJob, batches: int, workers: int | None) -> _Request:
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    requested = job.device
    device_type = None if requested is None or requested == "auto" else torch.device(requested).type
    if device_type == "cuda" and not gpus:
        raise FeatvizError(f"device is {str(requested)!r}, but the Ray cluster has no GPU")
    unit = "GPU" if gpus and device_type in (None, "cuda") else "CPU"
    slots = max(1, int(resources.get(unit, 0)))
    count = min(workers or slots, slots, batches)
    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    cores = [number for number in cores if number] or [1]
    threads = max(1, min(cores) // math.ceil(count / len(cores)))
    return _Request(count, unit, threads, device_type or (None if gpus else "cpu"))


def _spread(
    ray: Any, job: AtlasJob, batches: Sequence[Batch], workers: int | None
) -> Iterator[list[Row]]:
    request = _plan_workers(ray, job, len(batches), workers)
    job_reference = ray.put(pack(job))
    worker = ray.remote(
        max_restarts=PATIENCE,
        max_task_retries=PATIENCE,
        scheduling_strategy="SPREAD",
        **{f"num_{request.unit.lower()}s": 1},
    )(_Worker)
    starting: dict[Any, Any] = {}
    running: dict[Any, tuple[Any, int]] = {}
    idle: list[Any] = []

    def launch() -> None:
        # Wrapped in a list, so that an actor can fetch it again after it is restarted.
        actor = worker.remote([job_reference], request.threads, request.device)
        starting[actor.ready.remote()] = actor

    queue = list(range(len(batches)))
    errors: list[FeatvizError] = []
    deaths = 0
    try:
        for _ in range(request.workers):
            launch()
        deadline = time.monotonic() + START
        while queue or running:
            while queue and idle:
                actor, index = idle.pop(), queue.pop(0)
                running[actor.work.remote(batches[index])] = actor, index
            # Only limit the wait for a worker to start while no other is running.
            timeout = None if running else max(0.0, deadline - time.monotonic())
            done, _ = ray.wait([*starting, *running], num_returns=1, timeout=timeout)
            if not done:
                raise request.denied(ray)
            is_start = done[0] in starting
            actor, index = (starting.pop(done[0]), -1) if is_start else running.pop(done[0])
            try:
                rows = ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                reason = _cause(error)
                if is_start or isinstance(reason, StartError):
                    yield from _finished(ray, running)
                    raise reason from None
                errors.append(reason)
                idle.append(actor)
            except ray.exceptions.RayError as error:
                _kill(ray, actor)
                if not is_start:
                    deaths += 1
                    queue.append(index)  # move to the end: it may be what kills workers
                    launch()
                    deadline = time.monotonic() + START
                if deaths > PATIENCE or not (starting or idle or running):
                    yield from _finished(ray, running)
                    reason = FeatvizError(f"workers on the cluster keep dying: {one_line(error)}")
                    raise reason from None
            else:
                idle.append(actor)
                if not is_start:
                    deaths = 0
                    yield rows
        settle(errors, len(batches))
    finally:
        for actor in [*starting.values(), *idle, *(actor for actor, _ in running.values())]:
            _kill(ray, actor)


def _finished(ray: Any, running: dict[Any, Any]) -> Iterator[list[Row]]:
    """Yield the rows of finished batches that have not been fetched."""
    done = ray.wait([*running], num_returns=len(running), timeout=0)[0] if running else []
    for ref in done:
        try:
            rows = ray.get(ref)
        except Exception:  # noqa: S112 - another error is about to be raised
            continue
        yield rows


def _cause(error: Any) -> FeatvizError:
    """Return the error that a worker raised, in one line and without Ray's wrapper."""
    cause = error.cause
    return cause if isinstance(cause, FeatvizError) else FeatvizError(one_line(cause or error))


def _kill(ray: Any, actor: Any) -> None:
    with contextlib.suppress(Exception):  # it is dead, or the cluster is unreachable
        ray.kill(actor)
