"""The entry point: commands, and one-line error messages on stderr."""

from __future__ import annotations

import importlib
import logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from featviz._version import __version__
from featviz.cli.signals import interruptible
from featviz.errors import MAX_MESSAGE, FeatvizError, FeatvizWarning, did_you_mean, shorten

#: Command -> (module in featviz.cli, help). A command's module is imported when it is used.
COMMANDS = {
    "models": ("catalog", "List the available networks."),
    "layers": ("catalog", "List the layers of a network."),
    "render": ("render", "Render what units respond to."),
    "dream": ("dream", "Enhance what a network sees in an image; write images or videos."),
    "attack": ("attack", "Perturb images until a network misclassifies them."),
    "explain": (
        "explain",
        "Show which pixels of images an objective depends on (alias: attribute).",
    ),
    "attribute": ("explain", ""),
    "measure": ("measure", "Measure attribution methods on a network and images."),
    "atlas": ("atlas", "Render every unit of some layers into a folder."),
    "examples": ("examples", "Find the dataset images that activate units most and least."),
    "check": ("check", "Check whether a rendered image can be trusted."),
    "view": ("view", "Write pages for browsing an atlas."),
    "calibrate": ("calibrate", "Measure the colour statistics and spectrum of images."),
}
#: Exit status after Ctrl-C, and after SIGTERM, as of a shell.
INTERRUPTED, TERMINATED = 130, 143
#: Aliases of commands.
ALIASES = {"attribute": "explain"}


class _Lazy(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"featviz.cli.{COMMANDS[name][0]}")
        command: click.Command = getattr(module, ALIASES.get(name, name))
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            hint = did_you_mean(args[0], COMMANDS) or f"; known: {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command {args[0]!r}{hint}")
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items() if text])


@click.group(
    cls=_Lazy,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "FEATVIZ"},
)
@click.version_option(__version__, prog_name="featviz")
@click.pass_context
def cli(context: click.Context) -> None:
    """See what the units of a trained network respond to.

    \b
    featviz models
    featviz layers efficientnet_lite0
    featviz render efficientnet_lite0 'class:"Egyptian cat"'
    featviz COMMAND --help

    Every option has an environment variable, such as FEATVIZ_RENDER_DEVICE=cuda.
    """  # noqa: D301
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def shield(argument: str) -> str:
    """Prepend a space to an objective that starts with a minus, so that it is not an option.

    The parser of objectives ignores the space.
    """
    if not argument.startswith("-") or argument.startswith("--") or len(argument) < 3:
        return argument
    from featviz.objectives.text import names  # imports torch

    words = "|".join(sorted(map(re.escape, names()), key=len, reverse=True))
    number = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\s*[*/+-]"
    is_objective = re.match(rf"-\s*(?:(?:{words})\b|\(|{number}|\s-)", argument)
    return f" {argument}" if is_objective else argument


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 2, 130 or 143.

    The status is 2 for invalid input and 130 after Ctrl-C. SIGTERM, as a batch system sends it,
    saves what is done like Ctrl-C; the status is then 143. A second signal ends the process.
    ``--debug``, or the environment variable ``FEATVIZ_DEBUG``, shows the traceback of an error.
    """
    return _interruptible(sys.argv[1:] if arguments is None else arguments, ends=False)


def run() -> NoReturn:
    """Run the command line of this process, and end it with the status of :func:`main`."""
    sys.exit(_interruptible(sys.argv[1:], ends=True))


def _interruptible(arguments: Sequence[str], *, ends: bool) -> int:
    with interruptible(ends=ends) as signals:
        status = _run(arguments)
    is_terminated = signals[:1] == [signal.SIGTERM]
    return TERMINATED if is_terminated and status == INTERRUPTED else status


#: Pillow reports some broken files to its logger as well as by an exception: one line is enough.
_SILENT = logging.NullHandler()


def _run(arguments: Sequence[str]) -> int:
    logging.getLogger("PIL").addHandler(_SILENT)
    words = [shield(a) for a in arguments]
    debug = bool(os.environ.get("FEATVIZ_DEBUG")) or "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", FeatvizWarning)
            warnings.showwarning = _print_warning
            status: Any = cli.main(words, prog_name="featviz", standalone_mode=False)
            sys.stdout.flush()  # a full disk is reported here rather than at exit
    except (click.exceptions.Abort, KeyboardInterrupt):
        print("featviz: interrupted before a result was finished", file=sys.stderr)
        return INTERRUPTED
    except click.ClickException as error:
        return _print_error(error.format_message())
    except FeatvizError as error:
        _print_traceback(debug)
        return _print_error(str(error))
    except Exception as error:  # of a user's network, or a defect of featviz
        _print_traceback(debug)
        return _print_error(describe(error))
    return status if isinstance(status, int) else 0


def describe(error: Exception) -> str:
    """Return an unexpected error as one line: its type, its message and where it was raised."""
    if isinstance(error, MemoryError):
        return "out of memory: use a smaller size or batch size"
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    text = shorten(str(error), 300)
    return f"{type(error).__name__}: {text}{place}; --debug shows the traceback"


def _print_traceback(debug: bool) -> None:
    if debug:
        traceback.print_exc()


def _print_error(message: str) -> int:
    line = shorten(message, MAX_MESSAGE).encode(errors="backslashreplace").decode()
    print(f"featviz: {line}", file=sys.stderr)
    return 2


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"featviz: warning: {' '.join(str(message).split())}", file=sys.stderr)
