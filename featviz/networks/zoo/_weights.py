"""Weights of networks: reading them from files, drawing random ones, reaching their hosts."""

from __future__ import annotations

import contextlib
import importlib
import pickle
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from featviz.errors import ModelError, shorten
from featviz.networks.wrapping import as_network
from featviz.types import Tensor

#: Seconds after which a host counts as unreachable.
PATIENCE = 4.0
#: Keys under which training scripts store a network's weights, and prefixes that wrappers add.
_STATES = ("state_dict", "model", "model_state", "model_state_dict", "net", "network", "ema")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")


def read_checkpoint(net: nn.Module, path: str | Path) -> None:
    """Load the weights in a file (``.pth``, ``.pt``, ``.ckpt``, ``.safetensors``) into a network.

    They must fit exactly; a prefix that all their names have (``module.``) is removed. Files with
    more than tensors and plain containers are refused, since reading them may run code.

    Raises
    ------
    ModelError
        If the file is missing or unreadable, or its weights do not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no file {shorten(repr(str(path)))}: checkpoint= is a file of weights")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path.name!r} holds more than tensors, and reading it may run code: save the "
            "state_dict alone"
        ) from error
    except (OSError, RuntimeError, SafetensorError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ModelError(f"cannot read weights from {path.name!r}: {reason}") from error
    state = _state(content)
    if state is None:
        raise ModelError(f"{path.name!r} holds no weights by name")
    wanted = as_network(net).state_dict()
    for prefix in ("", *_PREFIXES):
        names = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        if names.keys() == wanted.keys():
            state = names
            break
    missing, extra = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    wrong = [n for n in wanted.keys() & state.keys() if wanted[n].shape != state[n].shape]
    if missing or extra or wrong:
        parts = [
            f"{what} {len(names)} ({min(names)}{', …' if len(names) > 1 else ''})"
            for what, names in (
                ("lacks", missing),
                ("has too many:", extra),
                ("other shape:", wrong),
            )
            if names
        ]
        raise ModelError(f"{path.name!r} does not fit the network: {'; '.join(parts)}")
    as_network(net).load_state_dict(state)


def _state(content: Any) -> dict[str, Tensor] | None:
    """Return the tensors by name in what a file holds."""
    if not isinstance(content, dict):
        return None
    for key in _STATES:
        if isinstance(content.get(key), dict):
            return _state(content[key])
    tensors = {str(n): t for n, t in content.items() if isinstance(t, torch.Tensor)}
    return tensors if tensors and len(tensors) == len(content) else None


@contextlib.contextmanager
def random_weights() -> Iterator[None]:
    """Draw random weights from a seed of their own; the global generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def reachable(url: str) -> bool:
    """Return whether a host answers within seconds; behind a proxy, which decides, True."""
    parts = urlsplit(url)
    if parts.scheme in urllib.request.getproxies():
        return True
    answers: list[bool] = []

    def connect() -> None:
        try:
            port = parts.port or (80 if parts.scheme == "http" else 443)
            socket.create_connection((parts.hostname, port), PATIENCE).close()
            answers.append(True)
        except OSError:
            answers.append(False)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PATIENCE)  # a resolver may hang for longer
    return bool(answers and answers[0])


@contextlib.contextmanager
def hub() -> Iterator[None]:
    """Use only cached files of the Hugging Face hub within the context if it cannot be reached.

    Its libraries would try again for half a minute.
    """
    try:
        constants: Any = importlib.import_module("huggingface_hub.constants")
    except ImportError:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    try:
        constants.HF_HUB_OFFLINE = before or not reachable(constants.ENDPOINT)
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
