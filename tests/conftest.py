"""What the tests share: real networks once a session, small ones made for a point."""

from __future__ import annotations

import hypothesis
import pytest
import torch

import featviz as fv
from tests import nets

#: A package of its own, which test_plugins.py installs.
collect_ignore = ["plugin"]

hypothesis.settings.register_profile(
    "featviz", deadline=None, max_examples=50, derandomize=True, database=None
)
hypothesis.settings.load_profile("featviz")


@pytest.fixture(scope="session")
def lite0() -> fv.Model:
    return fv.load("efficientnet_lite0")


@pytest.fixture
def tiny() -> fv.Model:
    """Two convolutions and a head: 8 px, two channels, three classes."""
    return nets.tiny()


@pytest.fixture
def tokens() -> fv.Model:
    return nets.tokens()


@pytest.fixture
def photos() -> torch.Tensor:
    """Four real photographs (4, 3, 224, 224) in [0, 1]."""
    return nets.photographs()


@pytest.fixture
def second_is_interrupted(monkeypatch) -> list:
    """Make ``saliency`` return the image, and be interrupted at the second; the list counts."""
    from featviz.attribution import methods as table

    calls: list = []

    def slow(case):
        calls.append(case)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return case.image

    monkeypatch.setitem(table.METHODS, "saliency", table.AttributionMethod(slow))
    return calls
