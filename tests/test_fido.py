"""FIDO: on networks that look at one place, with the expectation of its samples, and infilled."""

import numpy as np
import pytest
import torch

import featviz as fv
from featviz.attribution.baselines import grid
from featviz.attribution.fido import SampledBackdrop
from featviz.seeds import generator
from tests.test_attribute import checks, spot
from tests.test_masks_of_attribution import GOAL, place


@pytest.mark.parametrize("kind", ["preserve", "delete"])
@pytest.mark.parametrize(("top", "left"), [(6, 20), (0, 0)])
def test_it_finds_what_has_to_be_seen(kind, top, left):
    result = fv.attribute(
        spot(top, left), checks((32, 40)), GOAL, method="fido", kind=kind, steps=80
    )
    mask, inside = result.attributions[0, 0], place(top, left)
    assert 0 <= mask.min() <= mask.max() <= 1
    assert mask[inside].mean() > 0.75
    assert mask[~inside].mean() < 0.1


def test_samples_show_each_cell_as_often_as_its_probability_says():
    size, steps = (12, 16), 600
    probability = torch.linspace(0.1, 0.9, 16).expand(1, 1, *size)
    shown = torch.cat([torch.ones(1, 2, *size), probability], 1)
    layer = SampledBackdrop(torch.zeros(1, 2, *size), 16)
    tape = layer.draw(generator(3, "x"), steps, size)[:, None]
    apply = layer.prepare(tape)
    seen = torch.stack([apply(shown, step)[0, 0] for step in range(steps)])
    often = (seen > 0.5).double().mean(0)
    error = (often - probability[0, 0]).abs()
    # Binomial: a standard deviation of at most 0.02 at each of the 192 cells, which differ.
    assert error.max() < 0.085
    assert error.mean() < 0.025
    assert torch.equal(apply(shown, 5), apply(shown, 5))
    labels = grid(size, 4)
    coarse = SampledBackdrop(torch.zeros(1, 2, *size), 4)
    flat = torch.cat([torch.ones(1, 2, *size), torch.full((1, 1, *size), 0.5)], 1)
    drawn = coarse.prepare(tape)(flat, 0)[0, 0]
    assert all(drawn[labels == k].unique().numel() == 1 for k in labels.unique())
    assert drawn.unique().numel() == int(labels.max()) + 1


def test_a_function_makes_up_what_is_hidden():
    """With the place itself made up wherever it is hidden, nothing has to be seen."""
    model, image = spot(), checks((32, 40))
    calls = []

    def perfect(images, visible):
        assert visible.shape == (len(images), 1, 32, 40)
        calls.append(float(visible.detach().mean()))
        return image.expand_as(images)

    def gray(images, visible):
        return torch.full_like(images, 0.5) * (1 - visible) + images * visible

    options = {"method": "fido", "steps": 60, "cells": 40}
    nothing = fv.attribute(model, image, GOAL, infill=perfect, **options)
    assert nothing.attributions[0, 0][place()].mean() < 0.1
    assert np.mean(calls[:4]) == pytest.approx(0.5, abs=0.1)
    assert nothing.settings["infill"] == "given"
    something = fv.attribute(model, image, GOAL, infill=gray, **options)
    assert something.attributions[0, 0][place()].mean() > 0.7


@pytest.mark.parametrize(
    ("infill", "message"),
    [
        ("gan", "infill must be a function of images"),
        (lambda images, visible: images[:, :0], r"images of shape \(1, 1, 32, 40\), not \(1, 0"),
        (lambda images, visible: None, "images of shape .* not NoneType"),
        (lambda images, visible: images * float("nan"), "not finite"),
    ],
)
def test_bad_infills_are_one_line(infill, message):
    with pytest.raises(fv.FeatvizError, match=message):
        fv.attribute(spot(), checks((32, 40)), GOAL, method="fido", steps=2, infill=infill)
    with pytest.raises(fv.FeatvizError, match="meaningful_perturbation takes no infill"):
        fv.attribute(
            spot(), checks((32, 40)), GOAL, method="meaningful_perturbation", infill=infill
        )
