"""Command-line options: shared ones, and those generated from the options of verbs."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from featviz.errors import FeatvizError, shorten
from featviz.options import Options, words_of
from featviz.validation import fits_memory, positive_int

if TYPE_CHECKING:
    from featviz.networks.model import Model

F = TypeVar("F", bound=Callable[..., Any])


class _Size(click.ParamType):  # type: ignore[type-arg]
    name = "size"

    def convert(self, value: Any, param: Any, context: Any) -> Any:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", str(value))
        if match is None or not all(int(v) for v in match.groups() if v):
            self.fail(f"{value!r} is not a size: give a side such as 224, or HxW such as 180x320")
        height = int(match[1])
        size = (height, int(match[2] or height))
        fits_memory("an image", size)
        return size


class _Seed(click.ParamType):  # type: ignore[type-arg]
    name = "seed"

    def convert(self, value: Any, param: Any, context: Any) -> Any:
        if isinstance(value, (int, list)):
            return value
        try:
            seeds = [int(word) for word in str(value).split(",")]
        except ValueError:
            shown = shorten(repr(value))
            self.fail(f"{shown} is not a seed: give an integer, or several such as 0,1,2")
        return seeds[0] if len(seeds) == 1 else seeds


class _Count(click.ParamType):  # type: ignore[type-arg]
    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, context: Any) -> int:
        try:
            number = int(value)
        except (TypeError, ValueError):
            self.fail(f"{shorten(repr(value))} is not a whole number")
        return positive_int((param and param.name) or "count", number)


SIZE = _Size()
SEED = _Seed()
COUNT = _Count()
_TYPES: dict[Any, Any] = {"size": SIZE, "seed": SEED}


def of(*classes: type[Options], skip: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Add the fields of options classes to a command as ``--options``, with None as default."""
    fields = {f.name: f for c in classes for f in dataclasses.fields(c)}
    selected = [f for n, f in fields.items() if f.metadata["cli"] is not None and n not in skip]

    def decorate(command: F) -> F:
        for field in reversed(selected):
            command = _option(field)(command)
        return command

    return decorate


def _option(field: dataclasses.Field[Any]) -> Callable[[F], F]:
    flag = f"--{field.name.replace('_', '-')}"
    help = re.sub(r" ?\[\w+\]_", "", field.metadata["help"])  # a citation
    if field.metadata["cli"] is bool:
        return click.option(flag, field.name, is_flag=True, default=None, help=help)
    if field.default not in (None, (), ""):
        help = f"{help} Default: {_default_text(field)}."
    option_type = _TYPES.get(field.metadata["cli"], field.metadata["cli"])
    metavar = field.metadata["metavar"] or _choices(field)
    return click.option(
        flag, field.name, type=option_type, default=None, metavar=metavar, help=help
    )


def _choices(field: dataclasses.Field[Any]) -> str | None:
    """Return ``fast|standard|best`` for a field that takes one of a few words."""
    return "|".join(words_of(field)) or None


def _default_text(field: dataclasses.Field[Any]) -> str:
    value: Any = field.default
    if field.name == "eps":
        return f"{value * 255:g}/255"
    return f"{value:g}" if isinstance(value, float) else str(value)


def given(values: Mapping[str, Any], *classes: type[Options]) -> dict[str, Any]:
    """Return the options of ``classes`` that were given on the command line."""
    names = [f.name for c in classes for f in dataclasses.fields(c)]
    return {name: values[name] for name in names if values.get(name) is not None}


seed = click.option(
    "--seed",
    type=SEED,
    default=None,
    help="Image i uses SEED + i; 0,1,2 gives one seed per image. Default: 0.",
)
batch_size = click.option(
    "--batch-size",
    "--batch",
    "batch_size",
    type=COUNT,
    default=None,
    help="Images that are processed together. Default: depends on the device.",
)
tensorboard = click.option(
    "--tensorboard", metavar="DIR", help="Log images and scores for TensorBoard."
)
device = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps."
)
trust = click.option(
    "--trust",
    is_flag=True,
    help="With --from: load whatever model the file names, which may run code or download.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def load(name: str, values: Mapping[str, Any]) -> Model:
    """Return the network of a command; a name that only a file gives is not trusted.

    Raises
    ------
    FeatvizError
        If it would run code that the user did not name.
    """
    from featviz.networks import zoo  # imports torch, which help does without

    if values["source"] is None or values["model"] == name or values["trust"]:
        return zoo.load(name)
    if not zoo.is_vetted(name):
        raise FeatvizError(
            f"{values['source']!r} names the model {shorten(repr(name))}, which may run code or "
            "download: give --trust if you know where the file comes from, or the model itself"
        )
    return zoo.load(name, trust=False)


def _remember_quiet(context: click.Context, _: Any, value: bool) -> None:
    context.meta["featviz.quiet"] = value


quiet = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=_remember_quiet,
    help="Print nothing but warnings and errors.",
)


def is_quiet() -> bool:
    """Return whether ``--quiet`` was given."""
    return bool(click.get_current_context().meta.get("featviz.quiet"))


def progress() -> bool:
    """Return whether to show a progress bar: on a terminal, without ``--quiet``."""
    return sys.stderr.isatty() and not is_quiet()


def echo(line: str) -> None:
    """Print a line of a report, unless ``--quiet`` was given."""
    if not is_quiet():
        click.echo(line)


def status(interrupted: bool, saved: Iterable[object], *, failed: bool = False) -> int:
    """Return the exit status; after Ctrl-C, say on stderr what was saved."""
    if interrupted:
        print(f"featviz: interrupted; saved {', '.join(map(str, saved))}", file=sys.stderr)
        return 130
    return 2 if failed else 0


def output(given: str | None, name: str) -> str:
    """Return the output that is given, also if it is empty, or the default one."""
    return default_output(name) if given is None else given


def default_output(name: str) -> str:
    """Return ``name`` plus ``.png``, numbered if there is such a file: nothing is overwritten."""
    path, number = Path(f"{name}.png"), 1
    while path.exists():
        number += 1
        path = Path(f"{name}-{number}.png")
    return str(path)


class Command(click.Command):
    """A command whose raw docstring marks preformatted examples with click's backslash-b."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = self.help and self.help.replace("\\b\n", "\b\n")


#: Context settings of all commands.
CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
