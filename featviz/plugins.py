"""Objectives, parameterizations, transforms and networks of other installed packages.

A package names them as entry points of the groups below. They are looked up when a text has a name
that is not built in, and when names are listed; a built-in name always means the built-in.
"""

from __future__ import annotations

import inspect
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from featviz.errors import FeatvizError, shorten

OBJECTIVES = "featviz.objectives"
PARAMETERIZATIONS = "featviz.parameterizations"
TRANSFORMS = "featviz.transforms"
NETWORKS = "featviz.networks"


def names(group: str) -> list[str]:
    """Return the names that installed packages add to a group, sorted; nothing is imported."""
    return sorted({point.name for point in entry_points(group=group)})


def find(group: str, name: str, base: type | None = None) -> Any:
    """Import and return what a package adds under ``name``, or None if no package does.

    Raises
    ------
    FeatvizError
        If two packages add the name, its module cannot be imported, or it is not a concrete
        subclass of ``base``.
    """
    points = list(dict.fromkeys(entry_points(group=group, name=name)))
    if not points:
        return None
    if len({point.value for point in points}) > 1:
        owners = " and ".join(sorted(_package(point) for point in points))
        raise FeatvizError(f"{name!r} is added by {owners}: uninstall all but one")
    point = points[0]
    where = f"plug-in {name!r} of {_package(point)}"
    try:
        found = point.load()
    except (Exception, SystemExit) as error:  # whatever a stranger's module raises
        reason = shorten(f"{type(error).__name__}: {error}", 300)
        raise FeatvizError(f"{where} cannot be imported: {reason}") from error
    if base is not None and not _is_concrete(found, base):
        raise FeatvizError(f"{where} must be a concrete subclass of {base.__name__}: {point.value}")
    return found


def name_of(group: str, kind: type) -> str | None:
    """Return the name under which a package adds a class, or None if it does not.

    Only entry points of the class's own package are imported.
    """
    package = kind.__module__.partition(".")[0]
    for point in entry_points(group=group):
        if point.module.partition(".")[0] == package and find(group, point.name) is kind:
            return point.name
    return None


def _is_concrete(found: Any, base: type) -> bool:
    return isinstance(found, type) and issubclass(found, base) and not inspect.isabstract(found)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module
