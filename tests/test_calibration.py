"""Statistics of activations: measured as numpy measures them, and a prior that holds images to them."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import featviz as fv
from featviz.calibration import activation_statistics
from featviz.cli.main import main
from featviz.networks.noise import NetworkNoise
from featviz.objectives.activation_stats import LEAST_VARIANCE, MOST_DIRECTIONS, RELATIVE, fit
from featviz.optim.prior import logit_weight
from tests import nets


def crops(count: int, size: int = 96, seed: int = 0) -> torch.Tensor:
    """Crops (count, 3, size, size) of four photographs."""
    pictures = [p.movedim(0, 2).mul(255).byte().numpy() for p in nets.photographs()]
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        picture = pictures[k % len(pictures)]
        side = int(rng.integers(size, min(picture.shape[:2])))
        top, left = (int(rng.integers(0, n - side + 1)) for n in picture.shape[:2])
        crop = Image.fromarray(picture[top : top + side, left : left + side])
        pixels = np.array(crop.resize((size, size), Image.Resampling.BILINEAR))
        found.append(torch.tensor(pixels).movedim(2, 0) / 255)
    return torch.stack(found)


def net_moments(activation: torch.Tensor) -> np.ndarray:
    values = activation.double().numpy().reshape(*activation.shape[:2], -1)
    return np.concatenate([values.mean(2), values.std(2)], 1)


def test_the_distance_is_that_of_the_covariance_of_probabilistic_pca():
    rng = np.random.default_rng(3)
    mixing = rng.normal(size=(6, 20))
    values = rng.normal(size=(400, 6)) * 3 @ mixing + rng.normal(size=(400, 20)) + 5
    stats = fit(torch.tensor(values).float())
    scale = np.hypot(values.std(0, ddof=1), RELATIVE * values.mean(0))
    z = (values - values.mean(0)) / scale
    variances, axes = np.linalg.eigh(np.cov(z.T))
    kept = min(MOST_DIRECTIONS, 400 // 8, 19)
    rest = max(variances[::-1][kept:].sum() / (20 - kept), LEAST_VARIANCE)
    spread = np.maximum(variances[::-1][:kept], rest) - rest
    covariance = axes[:, ::-1][:, :kept] * spread @ axes[:, ::-1][:, :kept].T + rest * np.eye(20)
    new = rng.normal(size=(5, 20)) * 10
    standard = (new - values.mean(0)) / scale
    wanted = np.einsum("bi,ij,bj->b", standard, np.linalg.inv(covariance), standard) / 20
    np.testing.assert_allclose(stats.distance(torch.tensor(new).float()), wanted, rtol=1e-4)


def test_a_moment_that_never_varies_is_left_out():
    values = torch.rand(32, 6, generator=torch.Generator().manual_seed(0))
    values[:, 2] = 0.25
    stats = fit(values)
    changed = values[:4].clone()
    changed[:, 2] = 100
    torch.testing.assert_close(stats.distance(changed), stats.distance(values[:4]))
    assert stats.distance(values).isfinite().all()


@pytest.mark.parametrize("spread", [0.1, 1e-3, 1e-5, 0])
def test_noise_is_cheap_where_nothing_varies(spread):
    generator = torch.Generator().manual_seed(0)
    stats = fit(1 + spread * torch.randn(64, 8, generator=generator))
    noisy = 1 + 0.05 * torch.randn(16, 8, generator=generator)
    price = (stats.distance(noisy) / stats.tolerance - 1).relu()
    assert price.isfinite().all()
    assert price.mean() < 3


def test_noise_in_the_network_costs_little(lite0):
    """A channel that is the same in all photographs is not the same under noise."""
    images = crops(64)
    goal = fv.activation_prior(fv.calibrate(list(images), model=lite0, size=96))
    noise = NetworkNoise(lite0, (96, 96), channels=True, branches=True)
    noise.draw_((0.07, 0.3), (0.1, 0.7))
    with noise, torch.no_grad():
        assert goal(lite0, images[:8]).min() > -1


def test_the_price_is_what_exceeds_the_tolerance(lite0):
    images = crops(32)
    stats = fv.calibrate(list(images), model=lite0, layers=["_blocks.4", "_blocks.10"], size=96)
    assert (stats.count, stats.size, list(stats.layers)) == (
        32,
        (96, 96),
        ["_blocks.4", "_blocks.10"],
    )
    noise = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = lite0.activations(noise, ["_blocks.4", "_blocks.10"])
    prices = []
    for name, layer in stats.layers.items():
        values = net_moments(found[name])
        z = (values - layer.mean.numpy()) / layer.scale.numpy()
        along = z @ layer.directions.numpy().T
        inside = (along**2 / layer.variances.numpy()).sum(1)
        outside = ((z**2).sum(1) - (along**2).sum(1)) / float(layer.residual)
        degrees = np.isfinite(layer.scale.numpy()).sum()
        prices.append(np.maximum((inside + outside) / degrees / float(layer.tolerance) - 1, 0))
    value = fv.activation_prior(stats)(lite0, noise)
    np.testing.assert_allclose(value.detach(), -np.mean(prices, 0), rtol=2e-3)
    assert value.max() < -0.1


@pytest.mark.parametrize("kind", ["convolutions", "transformer", "channels last"])
def test_photographs_are_within_and_noise_is_not(lite0, tokens, kind):
    model = {
        "convolutions": lite0,
        "transformer": tokens,
        "channels last": fv.Model(nets.seeded(nets.ChannelsLast), mean=0.5, std=0.5, size=16),
    }[kind]
    size = 96 if kind == "convolutions" else 16
    images = crops(96, size)
    stats = fv.calibrate(list(images), model=model, size=size)
    goal = fv.activation_prior(stats)
    noise = torch.rand(8, 3, size, size, generator=torch.Generator().manual_seed(1)).round()
    within, outside = goal(model, crops(24, size, seed=9)).detach(), goal(model, noise).detach()
    assert within.median() > -0.02
    if kind == "convolutions":  # the others are not trained: nothing is unnatural to them
        assert outside.max() < 10 * within.median() - 0.1
    assert all("norm" in name or "bn" in name for name in stats.layers)


def test_photographs_are_cropped_as_for_the_network():
    seen = []
    net = nets.seeded(lambda: nets.Small(3))
    net.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    model = fv.Model(net, mean=0, std=1, size=8, channels=3, crop=0.5)
    images = [Image.fromarray(np.full((32, 32), 10 * k, np.uint8)) for k in range(16)]
    for image in images:
        image.paste(255, (0, 0, 32, 8))  # outside of the central half
    fv.calibrate([i.convert("RGB") for i in images], model=model, layers=["first"])
    assert torch.cat(seen).max() < 0.7


def test_a_network_that_is_not_finite_is_named():
    model = fv.Model(nets.Explodes(0.3), mean=0, std=1, size=8, channels=1)
    images = list(torch.linspace(0.2, 0.9, 20).view(-1, 1, 1, 1).expand(-1, 1, 8, 8))
    with pytest.raises(fv.FeatvizError, match="layer 'body' is not finite"):
        fv.calibrate(images, model=model, layers=["body"])


def test_networks_without_normalization_are_measured_at_their_convolutions(tiny):
    assert activation_statistics.default_layers(tiny, (8, 8)) == ["first", "second"]


def test_of_many_images_a_random_choice_is_kept(tiny, monkeypatch):
    monkeypatch.setattr(activation_statistics, "MOST_IMAGES", 20)
    generator = torch.Generator().manual_seed(0)
    images = list(torch.rand(50, 2, 8, 8, generator=generator))
    seen = []
    monkeypatch.setattr(
        activation_statistics, "fit", lambda values: seen.append(values) or fit(values)
    )
    stats = fv.calibrate(images, model=tiny, layers=["first"])
    with torch.no_grad():
        every = net_moments(tiny.activations(torch.stack(images), "first")["first"])
    rows = [int(np.abs(every - row.numpy()).max(1).argmin()) for row in seen[0]]
    assert stats.count == 50
    assert len(set(rows)) == 20
    assert max(rows) >= 20  # later ones, too
    again = fv.calibrate(images, model=tiny, layers=["first"])
    torch.testing.assert_close(again.layers["first"].mean, stats.layers["first"].mean)


def test_a_file_and_statistics_in_memory_are_the_same_prior(tiny, tmp_path):
    images = torch.rand(20, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    stats = fv.calibrate(list(images), model=tiny)
    path = stats.save(tmp_path / "stats.safetensors")
    shown = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(1)) ** 4
    by_file = fv.objective(f'class:1 + 2*activation_prior:"{path}":share=0.9')
    in_memory = fv.class_logit(1) + 2 * fv.activation_prior(stats, share=0.9)
    torch.testing.assert_close(by_file(tiny, shown), in_memory(tiny, shown))
    assert fv.objective(str(in_memory)) == in_memory
    assert fv.ActivationStats.load(path).count == 20


def test_the_bytes_are_the_same_in_every_process():
    code = "from tests import zoo; print([str(o) for o in zoo.OBJECTIVES['activation_prior']])"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(4)
    }
    assert len(texts) == 1


def test_it_takes_the_place_of_the_prior_of_the_presets(lite0):
    stats = fv.calibrate(list(crops(16)), model=lite0, layers=["_bn1"], size=96)
    assert logit_weight(fv.class_logit(3)) == 1
    assert logit_weight(fv.class_logit(3) + 10 * fv.activation_prior(stats)) == 0


def test_an_image_is_drawn_towards_photographs(lite0):
    prior = fv.activation_prior(fv.calibrate(list(crops(64)), model=lite0, size=96))
    grainy = {"param": "pixel:sd=3", "size": 96, "transforms": (), "lr": 0.1}
    result = fv.render(lite0, prior, steps=24, **grainy)
    assert result.history[0, 0] < -0.1
    assert result.scores[0] > result.history[0, 0] / 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, s: fv.calibrate([], model=m), "no images"),
        (lambda m, s: fv.calibrate(list(torch.rand(15, 2, 8, 8)), model=m), "15 images are too few"),
        (lambda m, s: fv.calibrate(list(torch.rand(20, 2, 8, 8)), layers=["first"]), "give model="),
        (lambda m, s: fv.calibrate(list(torch.rand(20, 2, 8, 8)), model="lite"), "must be a featviz.Model"),
        (lambda m, s: fv.calibrate(list(torch.rand(20, 2, 8, 8)), model=m, channels=3), "takes 2 channels, not 3"),
        (lambda m, s: fv.calibrate(list(torch.rand(20, 2, 8, 8)), model=m, layers=["head"]), "no positions"),
        (lambda m, s: fv.calibrate(list(torch.rand(20, 2, 8, 8)), model=m, layers=["frist"]), "first"),
        (lambda m, s: fv.calibrate(list(torch.rand(20, 2, 8, 8)), model=m, layers=[]), "names no layer"),
        (lambda m, s: fv.ActivationStats.load("nowhere.safetensors"), "cannot read 'nowhere"),
        (lambda m, s: fv.activation_prior("x" * 300)(m, torch.rand(1, 2, 8, 8)), "cannot read 'xxx"),
        (lambda m, s: fv.activation_prior(fv.Stats), "not type"),
        (lambda m, s: fv.activation_prior("nowhere.safetensors")(m, torch.rand(1, 2, 8, 8)), "cannot read 'nowhere"),
        (lambda m, s: fv.activation_prior(s, share=0)(m, torch.rand(1, 2, 8, 8)), "share must be"),
        (lambda m, s: fv.activation_prior(s, layer="first")(m, torch.rand(1, 2, 8, 8)), "no layer up to 'first'"),
        (lambda m, s: fv.activation_prior(s)(nets.rgb(), torch.rand(1, 3, 8, 8)), None),
        (lambda m, s: fv.activation_prior(s)(nets.tokens(), torch.rand(1, 3, 16, 16)), "has no layer 'second'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(tiny, call, message):
    images = torch.rand(20, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    stats = fv.calibrate(list(images), model=tiny, layers=["second"])
    if message is None:  # the same layers: another network's images are another matter
        assert call(tiny, stats).isfinite()
        return
    with pytest.raises(fv.FeatvizError, match=message) as caught:
        call(tiny, stats)
    assert len(str(caught.value).splitlines()) == 1


def test_statistics_of_another_network(tiny):
    wider = fv.Model(nn.Sequential(nn.Conv2d(2, 9, 3)), mean=0.5, std=0.5, size=8, channels=2)
    wide = fv.calibrate(list(torch.rand(20, 2, 8, 8)), model=wider)
    renamed = fv.ActivationStats({"first": wide.layers["0"]}, wide.size, wide.count)
    with pytest.raises(fv.FeatvizError, match="another network: layer 'first' had 9 units"):
        fv.activation_prior(renamed)(tiny, torch.rand(1, 2, 8, 8))


def test_a_file_of_something_else(tiny, tmp_path):
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    path = fv.calibrate(list(images), size=16).save(tmp_path / "colours.safetensors")
    with pytest.raises(fv.FeatvizError, match="holds no statistics of activations"):
        fv.ActivationStats.load(path)
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")
    with pytest.raises(fv.FeatvizError, match="holds no statistics of activations"):
        fv.ActivationStats.load(tmp_path / "broken.safetensors")


def test_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for k, crop in enumerate(crops(16, 32)):
        Image.fromarray((crop * 255).byte().movedim(0, 2).numpy()).save(f"photos/{k}.png")
    network = "tests.nets:rgb"
    assert main(["calibrate", "photos", "--model", network, "-o", "s.safetensors"]) == 0
    assert "s.safetensors: 16 images, 2 layers" in capsys.readouterr().out
    goal = 'class:1 + 2*activation_prior:"s.safetensors"'
    assert main(["render", network, goal, "--steps", "2", "-o", "a.png"]) == 0
    assert main(["calibrate", "photos", "--model", network, "--gray", "-o", "t.safetensors"]) == 2
    assert "--gray is for images" in capsys.readouterr().err
