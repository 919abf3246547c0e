"""Process-wide settings that would change images: reset within a verb, then restored."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

P = ParamSpec("P")
R = TypeVar("R")

#: Seed of the global generators within a verb. Only a network or a data set that draws from them
#: notices: featviz has generators of its own.
_SEED = 0


class ProcessLock:
    """A lock of one process: a forked child gets a free one, whoever held it in the parent."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._free)

    def _free(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class _Shared:
    """State that all threads have in common: the first verb saves it, the last one restores it."""

    def __init__(self, save: Callable[[contextlib.ExitStack], None]) -> None:
        self.lock = ProcessLock()
        self.save = save
        self.users = 0
        self.restore = contextlib.ExitStack()

    @contextlib.contextmanager
    def reset(self) -> Iterator[None]:
        """Save the state for the context, unless a verb in another thread has done so."""
        with self.lock:
            if not self.users:
                with contextlib.ExitStack() as stack:  # undone if it fails half-way
                    self.save(stack)
                    self.restore = stack.pop_all()
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if not self.users:
                    self.restore.close()


def _reset_torch(stack: contextlib.ExitStack) -> None:
    dtype = torch.get_default_dtype()
    if dtype != torch.float32:
        stack.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # set for each backend, which this call cannot express
        _reset_backends(stack)
        return
    if precision != "highest":
        stack.callback(torch.set_float32_matmul_precision, precision)
        torch.set_float32_matmul_precision("highest")


def _reset_backends(stack: contextlib.ExitStack) -> None:
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    for backend in backends:
        stack.callback(setattr, backend, "fp32_precision", backend.fp32_precision)
        backend.fp32_precision = "ieee"


def _save_generators(stack: contextlib.ExitStack) -> None:
    stack.callback(torch.set_rng_state, torch.get_rng_state())
    if torch.cuda.is_initialized():
        stack.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    stack.callback(random.setstate, random.getstate())
    stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002 - the global one


_torch, _generators = _Shared(_reset_torch), _Shared(_save_generators)


@contextlib.contextmanager
def defaults() -> Iterator[None]:
    """Use torch's initial default dtype and device, and full precision, within the context."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_torch.reset())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


@contextlib.contextmanager
def reset() -> Iterator[None]:
    """Use torch's initial state within the context: an image depends on its settings only.

    Default dtype and device, the precision of matrix products, autocast, gradient and inference
    mode. The global generators of torch, numpy and Python are seeded, and restored afterwards, so
    that a network which draws from them gives the same image each time.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(defaults())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(_generators.reset())
        _save_generators(stack)  # those of a verb around this one
        _seed_generators()
        yield


def _seed_generators() -> None:
    torch.default_generator.manual_seed(_SEED)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(_SEED)
    random.seed(_SEED)
    np.random.seed(_SEED)  # noqa: NPY002


def shielded(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that computes: it runs within :func:`reset`."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with reset():
            return function(*args, **kwargs)

    return wrapper
