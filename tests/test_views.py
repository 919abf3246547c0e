"""Pictures larger than the network takes, optimized in crops."""

import pytest
import torch
from torch import nn

import featviz as fv
from featviz.errors import ModelError
from featviz.optim.views import VIEWS
from tests import nets


@pytest.fixture(scope="module")
def flat():
    """A network that takes 16 x 16 only."""

    def make():
        head = nn.Linear(512, 5)
        head.weight.data.abs_()  # so that one picture can raise every window of it
        return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), head)

    return fv.Model(nets.seeded(make), size=16)


def test_a_larger_picture_is_optimized_in_crops(flat):
    given = {"size": 32, "transforms": "jitter:8,crop:16", "steps": 80, "param": "pixel"}
    result = fv.render(flat, fv.class_logit(2), seed=[3, 4], **given)
    assert result.images.shape == (2, 3, 32, 32)
    assert result.settings["views"] == VIEWS
    # Independently: the logit of many random windows of the finished picture.
    generator = torch.Generator().manual_seed(0)
    windows = []
    for _ in range(400):
        y, x = torch.randint(0, 17, (2,), generator=generator).tolist()
        windows.append(result.images[:, :, y : y + 16, x : x + 16])
    with torch.no_grad():
        values = torch.stack([flat.net(w)[:, 2] for w in windows])
        gray = flat.net(torch.full((1, 3, 16, 16), 0.5))[0, 2]
    assert (values.mean(0) > gray + 1).all()
    spread = values.std(0) / VIEWS**0.5
    assert ((result.scores - values.mean(0)).abs() < 4 * spread + 0.1).all()
    alone = fv.render(flat, fv.class_logit(2), seed=[4], **given)
    assert torch.equal(alone.images[0], result.images[1])
    torch.testing.assert_close(alone.scores[0], result.scores[1])


def test_without_a_shift_only_the_centre_changes_and_is_scored(flat):
    given = {"size": 32, "transforms": "crop:16", "steps": 20, "param": "pixel"}
    result = fv.render(flat, fv.class_logit(2), **given)
    with torch.no_grad():
        centre = flat.net(result.images[:, :, 8:24, 8:24])[:, 2]
    torch.testing.assert_close(result.scores, centre)
    assert result.importance[:, :8].abs().max() < 1e-5 < result.importance[:, 8:24, 8:24].max()


def test_penalties_read_the_whole_picture(flat):
    goal = fv.class_logit(2) - 1e-2 * fv.total_variation()
    given = {"size": 32, "transforms": "crop:16", "steps": 3, "param": "pixel"}
    result = fv.render(flat, goal, **given)
    with torch.no_grad():
        centre = flat.net(result.images[:, :, 8:24, 8:24])[:, 2]
        small = fv.Model(nn.Identity(), size=32)
        expected = centre - 1e-2 * fv.total_variation()(small, result.images)
    torch.testing.assert_close(result.scores, expected)


def test_the_remedy_is_named_and_networks_of_any_size_are_scored_whole(flat):
    with pytest.raises(ModelError, match="transforms='jitter:8,crop:16'"):
        fv.render(flat, fv.class_logit(2), size=32, transforms="noise:0.1", steps=2)
    with pytest.raises(ModelError, match=r"cannot take images of shape \(1, 3, 8, 8\)") as caught:
        fv.render(flat, fv.class_logit(2), size=32, transforms="crop:8", steps=2)
    assert "crops" not in str(caught.value)
    free = nets.tiny(channels=3)
    result = fv.render(free, fv.channel("second", 1), size=16, transforms="crop:8", steps=2)
    assert "views" not in result.settings
    torch.testing.assert_close(result.scores, fv.channel("second", 1)(free, result.images))


def test_transparent_pictures_too(flat):
    given = {"size": 32, "transforms": "jitter:8,crop:16", "steps": 3, "param": fv.param.Alpha()}
    result = fv.render(flat, fv.class_logit(2), **given)
    assert result.images.shape == (1, 4, 32, 32)
    assert result.scores.isfinite().all()


class Flattening(nn.Module):
    """Takes a larger image for several: nothing raises."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 2, 1), nn.Linear(2 * 16 * 16, 5)

    def forward(self, x):
        return self.head(self.conv(x).view(-1, 2 * 16 * 16))


def test_a_network_that_reads_one_image_as_several_does_not_take_it():
    model = fv.Model(nets.seeded(Flattening), size=16)
    assert model.takes(16)
    assert len(model.net(torch.rand(1, 3, 32, 32))) == 4
    assert not model.takes(32)
    assert not model.takes(17)
    given = {"size": 32, "transforms": "crop:16", "steps": 2, "param": "pixel"}
    result = fv.render(model, fv.class_logit(2), **given)
    with torch.no_grad():
        centre = model.net(result.images[:, :, 8:24, 8:24])[:, 2]
    torch.testing.assert_close(result.scores, centre)
