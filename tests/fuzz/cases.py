"""A case, its outcome, and what counts as a failure."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import featviz as fv
from featviz.cli import main as cli

#: Seconds after which a case hangs.
LIMIT = 20
#: Longest line of an error.
MAX_LINE = 2100


@dataclasses.dataclass(frozen=True)
class Case:
    """Something to do in an empty folder: ``run(folder)`` returns or raises.

    ``sensible``: True must be accepted, False must be refused, None may be either.
    """

    kind: str
    text: str
    sensible: bool | None
    run: Callable[[Path], None]

    def __repr__(self) -> str:
        return f"{self.kind}: {self.text}"


class Hang(BaseException):
    """The case took more than :data:`LIMIT` seconds."""


class RefusedError(Exception):
    """The command line said no, in the way that it should."""


class BrokenPromiseError(Exception):
    """Whatever else must not happen, in words."""


@dataclasses.dataclass
class Outcome:
    """``accepted`` or ``refused``, or ``failed`` with a reason."""

    verdict: str
    reason: str = ""
    seconds: float = 0.0

    @property
    def bad(self) -> bool:
        return self.verdict == "failed"


def execute(case: Case, folder: Path, keep: dict[Path, bytes] | None = None) -> Outcome:
    """Run a case in ``folder``; the files ``keep`` must remain as they are."""
    started = time.monotonic()
    before = os.getcwd()  # noqa: PTH109
    os.chdir(folder)
    try:
        with _alarm(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                case.run(folder)
                outcome = Outcome("accepted")
            except (fv.FeatvizError, RefusedError) as error:
                outcome = Outcome("refused", str(error)[:300])
                if "\n" in str(error) or len(str(error)) > MAX_LINE:
                    outcome = Outcome("failed", f"not one line: {str(error)[:200]!r}")
    except Hang:
        outcome = Outcome("failed", f"hang over {LIMIT} s in {_place()}")
    except BrokenPromiseError as error:
        outcome = Outcome("failed", str(error))
    except BaseException as error:
        outcome = Outcome("failed", f"{type(error).__name__}: {str(error)[:200]} {_frames(error)}")
    finally:
        os.chdir(before)
    outcome.seconds = time.monotonic() - started
    if outcome.verdict == "accepted" and case.sensible is False:
        outcome = Outcome("failed", "nonsense was accepted", outcome.seconds)
    if outcome.verdict == "refused" and case.sensible is True:
        outcome = Outcome("failed", f"sense was refused: {outcome.reason}", outcome.seconds)
    for path, content in (keep or {}).items():
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
            outcome = Outcome("failed", f"the file {path.name} was lost", outcome.seconds)
    return outcome


_where = ""


def _place() -> str:
    return _where


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(_number, frame):
        global _where
        _where = " < ".join(
            f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_stack(frame)[-5:][::-1]
        )
        raise Hang

    previous = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def _frames(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/featviz/" in f.filename]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in frames[-3:][::-1])


def command(words: list[str]) -> None:
    """Run a command line in this process.

    Raises
    ------
    RefusedError
        If it ends with status 2 and one line.
    BrokenPromiseError
        If it does not do what its status says, or an unexpected exception was its end.
    """
    unexpected: list[Exception] = []
    original = cli.describe

    def describe(error: Exception) -> str:
        unexpected.append(error)
        return original(error)

    cli.describe = describe
    out, err = io.StringIO(), io.StringIO()
    out.flush = lambda: None  # type: ignore[method-assign]
    names = {p for p in Path.cwd().rglob("*") if p.is_file()}
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main(words)
    finally:
        cli.describe = original
    lines = [line for line in err.getvalue().splitlines() if "warning:" not in line]
    if unexpected:
        raise unexpected[0]
    if "Traceback" in err.getvalue():
        raise BrokenPromiseError(f"traceback: {err.getvalue()[-300:]}")
    left = {p for p in Path.cwd().rglob(".*") if re.search(r"\.[0-9a-f]{8}$", p.name)} - names
    if left:
        raise BrokenPromiseError(f"temporary files are left: {sorted(p.name for p in left)}")
    if status == 2:
        if len(lines) != 1 or not lines[0].startswith("featviz: ") or len(lines[0]) > MAX_LINE:
            raise BrokenPromiseError(f"not one line: {err.getvalue()[-300:]!r}")
        raise RefusedError(lines[0])
    if status != 0:
        raise BrokenPromiseError(f"status {status}: {err.getvalue()[-300:]!r}")
