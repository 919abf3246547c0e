"""What explainers are fitted to: images of another kind, range or number, and labels."""

import numpy as np
import pytest
import torch

import featviz as fv
from featviz.attribution import (
    concept_vectors,
    masking_network,
    prototypes,
    soft_tree,
    training_images,
)
from featviz.attribution.anchors import anchor
from featviz.attribution.dissection import dissect
from featviz.attribution.labelled_images import checked_labels
from tests import nets

LABELS = torch.arange(12) % 3


@pytest.fixture
def model():
    return fv.Model(nets.seeded(lambda: nets.Small(3)), size=8)


def images(count=12):
    source = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 8, 8, generator=source, dtype=torch.float32)


FITTERS = {
    "concept_vector": lambda m, x, y: concept_vectors.concept_vector(m, "first", x, images() ** 2),
    "tcav": lambda m, x, y: concept_vectors.tcav(
        m, "first", "class:1", x, images(), images() ** 2, runs=2
    ),
    "dissect": lambda m, x, y: dissect(m, "first", x, {"a": torch.ones(12, 8, 8)}),
    "prototypes": lambda m, x, y: prototypes.fit_prototypes(m, "first", x, y, steps=2),
    "soft_tree": lambda m, x, y: soft_tree.fit_soft_tree(m, x, depth=1, steps=2),
    "masking": lambda m, x, y: masking_network.fit_masking_network(
        m, x, classes=y, steps=2, width=4, levels=1
    ),
    "tracin": lambda m, x, y: training_images.tracin(
        m, [m.net.state_dict()], x, y, images(), LABELS
    ),
    "influence": lambda m, x, y: training_images.influence(
        m, x, y, images(2), LABELS[:2], damping=10.0
    ),
    "anchor": lambda m, x, y: anchor(m, x[0], most=8, largest=1),
}
LABELLED = ("prototypes", "masking", "tracin", "influence")


@pytest.mark.parametrize("name", FITTERS)
@pytest.mark.parametrize("change", ["x255", "bytes", "nan", "channels", "none"])
def test_images_of_another_kind_are_refused(model, name, change):
    given = {
        "x255": images() * 255,
        "bytes": (images() * 255).byte(),
        "nan": images() * float("nan"),
        "channels": images()[:, :2],
        "none": images(0),
    }[change]
    if name == "anchor" and change == "none":
        return
    with pytest.raises(fv.FeatvizError):
        FITTERS[name](model, given, LABELS)


@pytest.mark.parametrize("name", FITTERS)
def test_the_state_of_the_process_has_no_influence(model, name):
    expected = FITTERS[name](model, images(), LABELS)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    try:
        found = FITTERS[name](model, images(), LABELS)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
    assert type(found) is type(expected)
    if isinstance(found, torch.Tensor):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", LABELLED)
def test_labels_of_any_integer_type(model, name):
    for labels in (LABELS.int(), LABELS.byte(), LABELS.numpy(), LABELS.tolist()):
        FITTERS[name](model, images(), labels)


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("change", ["float", "few", "negative", "text"])
def test_labels_of_another_kind_are_refused(model, name, change):
    labels = {
        "float": LABELS.float(),
        "few": LABELS[:5],
        "negative": LABELS - 1,
        "text": ["a"] * 12,
    }
    with pytest.raises(fv.FeatvizError):
        FITTERS[name](model, images(), labels[change])


def test_labels_are_checked():
    assert checked_labels(np.array([0, 2], dtype=np.int16), 2, 3).dtype == torch.int64
    with pytest.raises(fv.FeatvizError, match="labels must be from 0 to 1"):
        checked_labels([0, 2], 2, 2)


def test_fitted_masks_check_what_they_are_given(model):
    made = FITTERS["masking"](model, images(), LABELS)
    assert made(images(2).numpy(), [0, 1]).shape == (2, 1, 8, 8)
    for given, labels in ((images(2) * 255, [0, 1]), (images(2), [0, 3]), (images(0), [])):
        with pytest.raises(fv.FeatvizError):
            made(given, labels)
