"""Find the networks that a plain function calls: in its closure, its defaults, its global names."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

#: How many functions and objects deep to look.
_DEPTH = 4


def reached_modules(function: Callable[..., Any]) -> list[nn.Module]:
    """Return the modules that a callable can reach, without those inside others of them.

    That is: its owner if it is a bound method; the variables of its closure, its defaults, and the
    global names in its code; the same for the functions among these; the parts of partial
    functions, containers and callable objects.
    """
    found: dict[int, nn.Module] = {}
    seen: set[int] = set()
    _collect(function, found, seen, _DEPTH)
    inner = {id(m) for module in found.values() for m in module.modules() if m is not module}
    return [module for key, module in found.items() if key not in inner]


def _collect(value: Any, found: dict[int, nn.Module], seen: set[int], depth: int) -> None:
    if id(value) in seen or depth < 0:
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        found[id(value)] = value
        return
    for part in _parts(value):
        _collect(part, found, seen, depth - 1)


def _parts(value: Any) -> Iterator[Any]:
    """Yield what a callable or container holds."""
    if isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, types.FunctionType):
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        for cell in value.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        yield getattr(value, "__wrapped__", None)
        yield from _globals(value.__code__, value.__globals__)
    elif isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, (list, tuple)):
        yield from value
    elif callable(value) and not isinstance(value, (type, types.BuiltinFunctionType)):
        yield type(value).__call__
        yield from getattr(value, "__dict__", {}).values()


def _globals(code: types.CodeType, names: dict[str, Any]) -> Iterator[Any]:
    """Yield the networks and functions that code refers to by global names."""
    for name in code.co_names:
        value = names.get(name)
        if isinstance(value, (nn.Module, types.FunctionType, functools.partial, list, dict)):
            yield value
    for constant in code.co_consts:  # functions defined inside
        if isinstance(constant, types.CodeType):
            yield from _globals(constant, names)
