"""Draw cases of a kind and run each in a folder of its own, in this process or as a worker."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import tempfile
from pathlib import Path

import hypothesis
from hypothesis import strategies as st

from tests.fuzz import calls, cases, command_lines, files, fixtures, grammar

#: Memory that a worker may map.
MEMORY = 8 * 2**30


class Session:
    """The files that cases use, and a new folder with them for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "stored").mkdir()
        self.atlas = files.stored_atlas(folder / "stored" / "atlas")
        self.program, self.checkpoint = files.program_and_checkpoint(folder / "stored")

    def strategy(self, kind: str) -> st.SearchStrategy:
        return {
            "command line": command_lines.lines, "call": calls.calls, "settings": files.settings, "image": files.images,
            "array": files.arrays, "atlas": lambda: files.atlases(self.atlas), "text": grammar.texts,
            "program": lambda: files.programs(self.program, self.checkpoint),
        }[kind]()  # fmt: skip

    def execute(self, case: cases.Case) -> cases.Outcome:
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            folder, keep = Path(name), {}
            if case.kind == "command line":
                keep = fixtures.write(folder)
                if "'stored'" in case.text:
                    shutil.copytree(self.atlas, folder / "stored")
            return cases.execute(case, folder, keep)


def run(kind: str, count: int, seed: int, session: Session, report) -> None:
    """Draw ``count`` inputs of a kind, and report the case before and the outcome after each."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, deadline=None, database=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck), derandomize=False,
    )  # fmt: skip
    @hypothesis.given(session.strategy(kind))
    def one(case: cases.Case) -> None:
        report(case, None)
        report(case, session.execute(case))

    one()


def worker(kind: str, count: int, seed: int, pipe) -> None:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with Path(os.devnull).open("w") as null, contextlib.redirect_stderr(null):
        os.dup2(null.fileno(), 2)
        with tempfile.TemporaryDirectory(prefix="featviz-fuzz-") as name:
            session = Session(Path(name))

            def report(case, outcome) -> None:
                done = (
                    None if outcome is None else (outcome.verdict, outcome.reason, outcome.seconds)
                )
                pipe.send((case.text, done))

            run(kind, count, seed, session, report)
    pipe.send(None)
