"""A few random inputs of each kind; ``python -m tests.fuzz --count 5000`` tries many more."""

from __future__ import annotations

import pytest

from tests.fuzz.session import Session, run

#: Inputs of each kind in a test run.
COUNTS = {
    "command line": 60,
    "call": 100,
    "settings": 40,
    "image": 40,
    "array": 30,
    "atlas": 30,
    "text": 40,
    "program": 15,
}


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    return Session(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", COUNTS)
def test_inputs_are_used_or_refused_in_one_line(kind, session):
    failures, count = [], 0

    def report(case, outcome):
        nonlocal count
        if outcome is not None:
            count += 1
            if outcome.bad:
                failures.append(f"{case}: {outcome.reason}")

    run(kind, COUNTS[kind], 20, session, report)
    assert count >= COUNTS[kind] // 2
    assert failures == []
