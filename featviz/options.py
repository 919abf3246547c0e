"""Options of verbs, declared once: fields of a frozen dataclass, each with a help text.

A verb that takes ``**options`` and is decorated with :func:`takes` shows the fields in its
signature and docstring; the command line builds its options from them; output files record them.
Next to each class there is a ``TypedDict`` of the same keywords, for type checkers; a test keeps
the two in sync.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, get_args

from featviz.errors import FeatvizError, did_you_mean
from featviz.other_libraries import KEYWORDS, WORDS
from featviz.process_state import reset
from featviz.types import MethodName, Precision, QualityName, Self
from featviz.validation import functions, one_of, positive_int, real, sides, switch, whole

P = ParamSpec("P")
R = TypeVar("R")


def option(
    default: Any,
    help: str,
    *,
    cli: Any = None,
    metavar: str | None = None,
    recorded: bool = True,
    bounds: tuple[float, float] | None = None,
    above: bool = False,
) -> Any:
    """Declare a field: its default, its help text, and the type of its command-line option.

    ``cli`` is ``str``, ``int``, ``float``, ``bool`` (a flag), ``"size"`` or ``"seed"``; without it,
    the option exists in Python only. ``recorded`` says whether output files store it. A number must
    be within ``bounds`` (``above`` excludes the lower one), whether it comes from Python, the
    command line or a file; None is accepted where it is the default.
    """
    metadata = {"help": help, "cli": cli, "metavar": metavar, "recorded": recorded}
    metadata |= {"bounds": bounds, "above": above}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Base class of the options of verbs; every number is checked when an instance is made."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            object.__setattr__(self, field.name, _checked(field, value))

    @classmethod
    def of(cls, options: Self | None, keywords: Mapping[str, Any]) -> Self:
        """Return ``options``, by default the default options, with ``keywords`` replaced.

        Raises
        ------
        FeatvizError
            If a keyword is unknown, or ``options`` is not an instance of this class.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in keywords:
            if name not in known:
                if name in KEYWORDS:
                    raise FeatvizError(f"no option {name!r}: {KEYWORDS[name]}")
                hint = did_you_mean(name, known) or f"; known: {', '.join(known)}"
                raise FeatvizError(f"no option {name!r}{hint}")
        if options is None:
            return cls(**keywords)
        if not isinstance(options, cls):
            raise FeatvizError(f"settings must be {cls.__name__}, not {type(options).__name__}")
        return dataclasses.replace(options, **keywords)


def _checked(field: dataclasses.Field[Any], value: Any) -> Any:
    """Return the value of a field as its type says, within its bounds."""
    bounds, kind = field.metadata["bounds"], str(field.type).removesuffix(" | None")
    if bounds is not None and kind == "float":
        return real(field.name, value, *bounds, above=field.metadata["above"])
    if bounds is not None:
        return whole(field.name, value, *bounds)
    if words := words_of(field):
        if isinstance(value, str) and WORDS.get(value) in words:
            raise FeatvizError(f"no {field.name} {value!r}: it is called {WORDS[value]!r} here")
        return one_of(field.name, value, words)
    if kind == "Size":
        shape = sides(field.name, value)
        return shape if isinstance(value, (tuple, list)) else shape[0]
    if kind == "bool":
        return switch(field.name, value)
    if kind == "str" and not isinstance(value, str):
        raise FeatvizError(f"{field.name} must be a text, not {type(value).__name__}")
    return value


def words_of(field: dataclasses.Field[Any]) -> list[str]:
    """Return the words that a field may be, if its type is a few words."""
    kind = str(field.type).removesuffix(" | None")
    if kind.startswith("Literal["):
        return re.findall(r"[\"']([^\"']+)[\"']", kind)
    return list(_WORDS.get(kind, ()))


#: Types of a few words that several options classes share.
_WORDS = {
    "MethodName": get_args(MethodName),
    "Precision": get_args(Precision),
    "QualityName": get_args(QualityName),
}


def split(keywords: Mapping[str, Any], *classes: type[Options]) -> list[dict[str, Any]]:
    """Split keywords by the class that declares them; unknown ones go to the last class."""
    parts: list[dict[str, Any]] = [{} for _ in classes]
    fields = [{field.name for field in dataclasses.fields(c)} for c in classes]
    for name, value in keywords.items():
        owner = next((i for i, names in enumerate(fields) if name in names), len(classes) - 1)
        parts[owner][name] = value
    return parts


def documented(cls: type[Options]) -> type[Options]:
    """Append the fields, with their help texts, to the docstring of an options class."""
    lines = [inspect.cleandoc(cls.__doc__ or ""), "", "Attributes", "----------"]
    for field in dataclasses.fields(cls):
        lines += [f"{field.name} : {field.type}", f"    {field.metadata['help']}"]
    cls.__doc__ = "\n".join(lines) + "\n"
    return cls


def takes(*classes: type[Options]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Add the fields of options classes to the signature and docstring of a verb."""

    def decorate(verb: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(verb)
        verb_parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = {p.name for p in verb_parameters}
        fields = [f for c in classes for f in dataclasses.fields(c) if f.name not in names]
        nouns = [p.name for p in verb_parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        keywords = [p.name for p in verb_parameters if p.kind is p.KEYWORD_ONLY]
        first_keyword = next((n for n in keywords if n != "settings"), "…")
        keyword = inspect.Parameter.KEYWORD_ONLY
        option_parameters = [
            inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type) for f in fields
        ]

        @functools.wraps(verb)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            if len(args) > len(nouns):
                raise FeatvizError(
                    f"{verb.__name__} takes {', '.join(nouns)} by position: give the rest by name, "
                    f"such as {first_keyword}="
                )
            for name in ("callbacks", "on_stored"):
                if name in kwargs:
                    functions(name, kwargs[name])
            if kwargs.get("batch_size") is not None:
                kwargs["batch_size"] = positive_int("batch_size", kwargs["batch_size"])
            with reset():
                return verb(*args, **kwargs)

        full_signature = signature.replace(parameters=[*verb_parameters, *option_parameters])
        wrapper.__signature__ = full_signature  # type: ignore[attr-defined]
        lines = ["Other Parameters", "----------------"]
        for field in fields:
            lines += [f"{field.name} : {field.type}", f"    {field.metadata['help']}"]
        section = "\n".join([*lines, "", ""])
        doc = inspect.cleandoc(verb.__doc__ or "")
        start = min(
            (doc.find(f"{s}\n---") for s in ("Returns", "Raises") if f"{s}\n---" in doc),
            default=-1,
        )
        wrapper.__doc__ = (
            doc[:start] + section + doc[start:] if start >= 0 else f"{doc}\n\n{section}"
        )
        return wrapper

    return decorate
