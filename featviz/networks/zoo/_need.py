"""Optional packages of the sources of networks, with one-line errors on how to install them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from featviz.errors import ModelError


def have(*packages: str) -> bool:
    """Return whether all ``packages`` can be found, without importing them."""
    return all(importlib.util.find_spec(p) is not None for p in packages)


def need(package: str, install: str, what: str) -> Any:
    """Import ``package``; raise :class:`ModelError` with the ``install`` command if it fails."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{what} needs {error.name or package}, which is not installed: {install}"
        ) from error
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{what} needs {package}, which does not import here: {reason}") from error


def problem(package: str, install: str) -> str:
    """Return why a package cannot be used here, empty if it can; this imports it."""
    if not have(package):
        return f"not installed: {install}"
    try:
        importlib.import_module(package)
    except Exception as error:  # whatever a package raises
        reason = " ".join(str(error).split())[:100]
        return f"does not import here: {reason}"
    return ""


def build(make: Callable[[], Any], name: str) -> Any:
    """Build a network that may download its weights; raise :class:`ModelError` on failure."""
    try:
        return make()
    except TypeError as error:  # an option that it does not have
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"cannot build {name!r}: {reason}") from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"cannot load the weights of {name!r}: {reason}; without a network, use weights=None "
            "or checkpoint="
        ) from error
