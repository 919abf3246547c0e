"""Families of networks that other packages add; ``docs/plugins.md``."""

from __future__ import annotations

from typing import Any

from featviz import plugins
from featviz.errors import FeatvizError, ModelError, shorten


def names() -> list[str]:
    """Return the prefixes of the families, sorted; nothing is imported."""
    return plugins.names(plugins.NETWORKS)


def describe(prefix: str) -> tuple[str, str]:
    """Return one line about a family, and why it does not work here, or ``""``."""
    try:
        family = plugins.find(plugins.NETWORKS, prefix)
    except FeatvizError as error:
        return "a plug-in", str(error)
    return (family.__doc__ or "a plug-in").strip().split("\n")[0], ""


def load(prefix: str, name: str, weights: str | None, options: dict[str, Any]) -> Any:
    """Return what the function of a family makes of ``name``.

    Raises
    ------
    ModelError
        If the plug-in cannot be imported, or its function fails.
    """
    try:
        family = plugins.find(plugins.NETWORKS, prefix)
    except FeatvizError as error:
        raise ModelError(str(error)) from error
    try:
        return family(name, weights=weights, **options)
    except ModelError:
        raise
    except (Exception, SystemExit) as error:  # whatever a stranger's function raises
        reason = shorten(f"{type(error).__name__}: {error}", 200)
        raise ModelError(f"{prefix}:{name} failed: {reason}") from error
