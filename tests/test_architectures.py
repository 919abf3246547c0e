"""The part of ``benchmarks/architectures.py`` whose networks the tests' own packages define."""

import sys
from pathlib import Path

import pytest
from torch import nn

import featviz as fv

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import architectures

        yield architectures
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in ("architectures", "architecture_zoo", "report"):
            sys.modules.pop(name, None)


def names():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from architecture_zoo import CORE

        return sorted(CORE)
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("name", names())
def test_featviz_agrees_with_plain_hooks(benchmark, name):
    row = benchmark.row_of(name, benchmark.ALL[name])
    assert row is not None, "its package is missing"
    assert row.problem == ""
    assert row.axes > 0
    assert row.error <= benchmark.TOLERANCE


def test_the_examination_finds_a_wrong_axis_and_a_wrong_activation(benchmark, monkeypatch):
    def build(**more):
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4)
        )
        return fv.Model(net.eval(), size=8, **more)

    def problem(**more):
        entry = benchmark.Architecture("torch", lambda: build(**more))
        return benchmark.row_of("net", entry).problem

    assert problem() == ""
    assert "axis 2 of 8 units instead of 1 of 8" in problem(axes={"0": 2})
    whole = fv.Model.activations

    def spoiled(model, images, wanted):
        return {n: t * 1.01 for n, t in whole(model, images, wanted).items()}

    monkeypatch.setattr(fv.Model, "activations", spoiled)
    assert "differs from the hook by 0.0" in problem()
    monkeypatch.undo()
    forward = fv.Model.forward

    def leaking(model, images):
        model.net[0].register_forward_hook(lambda *_: None)
        return forward(model, images)

    monkeypatch.setattr(fv.Model, "forward", leaking)
    assert "the module is not what it was" in problem()
