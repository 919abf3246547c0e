"""What the tests share: real networks once a session, small ones made for a point."""

from __future__ import annotations

import shutil
import warnings

import hypothesis
import pytest
import torch

import featviz as fv
from tests import nets

#: The browsers that can be driven, as they are called on the path.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
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


@pytest.fixture(scope="module")
def browser():
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser on the path: {', '.join(BROWSERS)}")
    api = pytest.importorskip("playwright.sync_api")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the driver leaves open
        with api.sync_playwright() as play:
            made = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
            yield made
            made.close()
