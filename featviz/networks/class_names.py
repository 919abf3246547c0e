"""Find a class by its name."""

from __future__ import annotations

from collections.abc import Sequence

from featviz.errors import UnitError, did_you_mean


def class_index(classes: Sequence[str] | None, name: str) -> int:
    """Return the index of the class called ``name``, ignoring case.

    Raises
    ------
    UnitError
        If there are no class names, or none or several match.
    """
    if classes is None:
        raise UnitError(f"the model has no class names: give the index instead of {name!r}")
    folded_name = name.casefold()
    matches = [i for i, c in enumerate(classes) if c.casefold() == folded_name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UnitError(f"class {name!r} is ambiguous: give one of the indices {matches}")
    by_folded_name = {c.casefold(): c for c in classes}
    containing = [c for c in classes if folded_name in c.casefold().split()]
    if containing:
        raise UnitError(f"no class {name!r}; did you mean {_either(containing)}?")
    hint = did_you_mean(folded_name, by_folded_name)
    for folded, original in by_folded_name.items():
        hint = hint.replace(repr(folded), repr(original))
    raise UnitError(f"no class {name!r}{hint}")


def _either(names: list[str], most: int = 6) -> str:
    return " or ".join(map(repr, names[:most])) + (" or …" if len(names) > most else "")
