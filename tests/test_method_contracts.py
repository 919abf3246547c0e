"""Every attribution method and every attack through one suite each."""

import pytest
import torch
from torch import nn

import featviz as fv
from featviz.attacks.algorithms import ALGORITHMS
from featviz.attacks.criterion import LOSSES
from featviz.attribution.methods import METHODS
from tests import nets

SIDE = 12


class Planted(nn.Module):
    """Reads one quarter of the image, through a ReLU: the answer is known."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.act = nn.ReLU()
        with torch.no_grad():
            self.conv.weight.fill_(1 / 9)
            self.conv.bias.zero_()

    def forward(self, x):
        maps = self.act(self.conv(x))
        return maps[:, :, : SIDE // 2, : SIDE // 2].mean((2, 3))


@pytest.fixture(scope="module")
def planted() -> fv.Model:
    return fv.Model(nets.seeded(Planted), size=(SIDE, SIDE), channels=1)


def picture() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return 0.25 + 0.5 * torch.rand(1, 1, SIDE, SIDE, generator=generator)


#: What a method needs on so small an image.
OPTIONS = {
    "occlusion": {"cells": 6},
    "feature_ablation": {"cells": 4},
    "kernel_shap": {"cells": 4, "steps": 200},
    "meaningful_perturbation": {"cells": 12, "steps": 100, "baseline": "black"},
    "extremal_perturbation": {"cells": 12, "steps": 300, "area": 0.25, "baseline": "black"},
    "pattern_attribution": {
        "data": torch.rand(8, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(9))
    },
    "fido": {"cells": 12, "steps": 60, "baseline": "black"},
    "noise_grad": {"steps": 4},
    "fusion_grad": {"steps": 4},
    "lime": {"cells": 4, "steps": 200, "baseline": "black"},
    "prediction_difference": {"cells": 12, "steps": 24},
    "rise": {"cells": 6, "steps": 2000, "baseline": "black"},
    "xrai": {"segments": torch.arange(SIDE**2).view(SIDE, SIDE) // 3},
    "cam": {"layer": "act"},
    "grad_cam": {"layer": "act"},
    "grad_cam_plus_plus": {"layer": "act"},
    "layer_cam": {"layer": "act"},
    "score_cam": {"layer": "act"},
    "guided_grad_cam": {"layer": "act"},
}

#: What is explained, if not the first logit: ``cam`` refuses what is not an average of maps, and the
#: gradient of the logit does not vary.
GOALS = {
    "cam": "channel:act:0",
    "var_grad": fv.channel("output", 0) * fv.channel("output", 0),
}

#: One weight for a whole map cannot tell where a head crops.
NOT_LOCAL = {"cam", "grad_cam", "grad_cam_plus_plus", "score_cam"}


@pytest.mark.filterwarnings("ignore:noise in the network changes only the length")
@pytest.mark.parametrize("method", METHODS)
def test_attribution_finds_the_quarter_that_is_read(planted, method):
    given = dict(OPTIONS.get(method, {}))
    if method in ("feature_ablation", "kernel_shap", "occlusion"):
        given["baseline"] = "black"
    goal = GOALS.get(method, "channel:output:0")
    result = fv.attribute(planted, picture(), goal, method=method, **given)
    assert result.attributions.shape[0] == 1
    assert tuple(result.heat.shape) == (1, SIDE, SIDE)
    assert result.heat.abs().max() <= 1
    assert (result.heat < 0).any() <= METHODS[method].signed
    heat = result.pixels[0].abs()
    inside = heat[: SIDE // 2, : SIDE // 2].sum() / heat.sum()
    if method not in NOT_LOCAL:
        assert inside > 0.7, float(inside)


@pytest.mark.filterwarnings("ignore:noise in the network changes only the length")
@pytest.mark.parametrize("method", METHODS)
def test_attribution_of_an_image_does_not_depend_on_the_others(planted, method):
    given = dict(OPTIONS.get(method, {}))
    several = torch.cat([picture(), 1 - picture()])
    goal = GOALS.get(method, "channel:output:0")
    both = fv.attribute(planted, several, goal, method=method, seed=[5, 6], **given)
    alone = fv.attribute(planted, several[1:], goal, method=method, seed=[6], **given)
    torch.testing.assert_close(both.attributions[1:], alone.attributions)
    assert both[1].record["seed"] == alone.record["seed"]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("method", ALGORITHMS)
def test_attacks_stay_in_the_ball_and_raise_what_they_are_for(method, norm, loss):
    net = nets.seeded(lambda: nn.Sequential(nets.Small(3), nn.Linear(3, 5)))
    model = fv.Model(net, size=(8, 8), channels=3)
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    eps = {"linf": 0.2, "l2": 2.0, "l1": 20.0}[norm]
    if method == "apgd" and norm == "l1":
        with pytest.raises(fv.FeatvizError, match="apgd supports the norms linf and l2"):
            fv.attack(model, images, method=method, norm=norm)
        return
    given = {"norm": norm, "eps": eps, "steps": 8, "eight_bit": False}
    towards = (model(images).argmax(1) + 1) % 5
    result = fv.attack(model, images, to=towards, method=method, loss=loss, **given)
    assert (result.norm <= eps * (1 + 1e-5)).all()
    assert 0 <= result.images.min() <= result.images.max() <= 1
    before = torch.stack(
        [fv.margin(int(c))(model, x[None])[0] for c, x in zip(towards, images, strict=True)]
    )
    after = torch.stack(
        [fv.margin(int(c))(model, x[None])[0] for c, x in zip(towards, result.images, strict=True)]
    )
    assert (after > before).all()
    assert torch.equal(result.success, result.after == towards)
