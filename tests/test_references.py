"""The richer objectives against formulas in numpy, on Lite0 and on a small transformer."""

import numpy as np
import pytest
import torch

import featviz as fv
from featviz.errors import UnitError
from tests import nets
from tests.test_units import hooked

LAYER = "_blocks.4"
RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def shown():
    return nets.photographs()


@pytest.fixture(scope="module")
def act(lite0, shown):
    """The activation of four photographs, float64, (4, 40, 28, 28)."""
    return hooked(lite0, LAYER, shown)


def check(objective, model, images, expected, rtol=3e-4):
    expected = np.broadcast_to(expected, (len(images),))
    np.testing.assert_allclose(objective(model, images).detach(), expected, rtol=rtol, atol=1e-5)


def gram(a):
    rows = a.reshape(*a.shape[:2], -1)
    return rows @ rows.transpose(0, 2, 1) / rows.shape[2]


@pytest.mark.parametrize(
    ("reduce", "reference"),
    [
        ("mean", lambda a: a.mean((1, 2))),
        ("sum", lambda a: a.sum((1, 2))),
        ("max", lambda a: a.max((1, 2))),
        ("mean_square", lambda a: (a**2).mean((1, 2))),
        ("sum_square", lambda a: (a**2).sum((1, 2))),
        ("norm", lambda a: np.sqrt((a**2).sum((1, 2)))),
        ("top7", lambda a: np.sort(a.reshape(4, -1))[:, -7:].mean(1)),
    ],
)
def test_reductions_with_and_without_positions(lite0, shown, act, reduce, reference):
    check(fv.channel(LAYER, 3, reduce=reduce), lite0, shown, reference(act[:, 3]))
    part = fv.channel(LAYER, 3, reduce=reduce, where="2:9,-5:")
    check(part, lite0, shown, reference(act[:, 3, 2:9, -5:]))


def test_masks_weigh_positions(lite0, shown, act, tmp_path):
    mask = RNG.uniform(size=act.shape[2:])
    expected = (act[:, 3] * mask).sum((1, 2)) / mask.sum()
    check(fv.channel(LAYER, 3, where=mask), lite0, shown, expected)
    np.save(tmp_path / "mask.npy", mask)
    check(fv.channel(LAYER, 3, where=str(tmp_path / "mask.npy")), lite0, shown, expected)
    energy = ((act**2) * mask).sum((1, 2, 3)) / mask.sum() / act.shape[1]
    check(fv.layer(LAYER, where=mask), lite0, shown, energy)


def test_class_probabilities(lite0, shown):
    logits = hooked(lite0, "_fc", shown)
    shifted = logits - logits.max(1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    check(fv.log_probability("Egyptian cat"), lite0, shown, log[:, 285])
    check(fv.probability(285), lite0, shown, np.exp(log[:, 285]))


def test_directions(lite0, shown, act):
    v, w = RNG.normal(size=40), RNG.normal(size=40)
    dot = np.tensordot(act, v, (1, 0))
    cosine = dot / np.linalg.norm(act, axis=1) / np.linalg.norm(v)
    check(fv.direction(LAYER, v, measure="cosine"), lite0, shown, cosine.mean((1, 2)))
    check(fv.direction(LAYER, v, position=(3, 20)), lite0, shown, dot[:, 3, 20])
    along = np.tensordot(act, v / np.linalg.norm(v), (1, 0))
    away = np.tensordot(act, w / np.linalg.norm(w), (1, 0))
    expected = (along - 0.3 * np.abs(away)).mean((1, 2))
    check(fv.angled_direction(LAYER, v, w, weight=0.3), lite0, shown, expected)
    whole = RNG.normal(size=act.shape[1:])
    total = (act * whole).sum((1, 2, 3))
    check(fv.direction(LAYER, whole), lite0, shown, total)
    norm = np.sqrt((act**2).sum((1, 2, 3)) * (whole**2).sum())
    check(fv.direction(LAYER, whole, measure="cosine"), lite0, shown, total / norm)


def test_features_of_a_sparse_autoencoder(lite0, shown, act, tmp_path):
    from safetensors.numpy import save_file

    decoder = RNG.normal(size=(64, 40)).astype(np.float32)
    path = tmp_path / "sae.safetensors"
    save_file({"W_dec": decoder, "b_dec": decoder[0]}, path)
    np.save(tmp_path / "nmf.npy", decoder)
    expected = np.tensordot(act, decoder[17], (1, 0)).mean((1, 2))
    for source in (f"{path}#W_dec[17]", f"{tmp_path / 'nmf.npy'}#[17]"):
        check(fv.direction(LAYER, source), lite0, shown, expected)
        check(fv.objective(str(fv.direction(LAYER, source))), lite0, shown, expected)
    for source, message in [
        (f"{path}", "select one with .*#NAME: W_dec, b_dec"),
        (f"{path}#W_enc[1]", "no tensor 'W_enc'"),
        (f"{path}#W_dec[64]", "no row 64"),
        (f"{path}#W_dec", "64x40 numbers"),
        (f"{tmp_path / 'none.safetensors'}", "No such file"),
        ("array:0123", "another process"),
    ]:
        with pytest.raises(UnitError, match=message):
            fv.direction(LAYER, source)(lite0, shown[:1])


def test_penalties_on_pictures(lite0, shown):
    x = shown.double().numpy()
    tv = np.abs(np.diff(x, axis=2)).sum((1, 2, 3)) + np.abs(np.diff(x, axis=3)).sum((1, 2, 3))
    check(fv.total_variation(), lite0, shown, tv)
    means, level = [], x
    for _ in range(3):
        dy, dx = np.diff(level, axis=2)[..., 1:], np.diff(level, axis=3)[:, :, 1:]
        means.append(np.sqrt((dx**2 + dy**2).sum(1)).mean((1, 2)))
        level = (level[..., ::2, :] + level[..., 1::2, :]) / 2
        level = (level[..., ::2] + level[..., 1::2]) / 2
    check(fv.multiscale_variation(scales=3), lite0, shown, np.mean(means, 0))
    check(fv.l1(0.3), lite0, shown, np.abs(x - 0.3).sum((1, 2, 3)))
    check(fv.l2(0.5), lite0, shown, np.sqrt(((x - 0.5) ** 2).sum((1, 2, 3))))
    from scipy import ndimage

    smooth = np.stack([[ndimage.uniform_filter(c, 3, mode="nearest") for c in s] for s in x])
    check(fv.blur(), lite0, shown, ((x - smooth) ** 2).sum((1, 2, 3)) / 2)
    ring = np.ones((224, 224))
    ring[12:-12, 12:-12] = 0
    border = (((smooth - x) ** 2 + 0.8 * (x - 0.5) ** 2) * ring).sum((1, 2, 3))
    check(fv.boundary_complexity(width=12), lite0, shown, border)
    power = np.abs(np.fft.fft2(x, norm="ortho")) ** 2
    f2 = np.fft.fftfreq(224)[:, None] ** 2 + np.fft.fftfreq(224) ** 2
    check(fv.spectrum(1.5), lite0, shown, (power * f2**1.5).sum((1, 2, 3)))


def test_matches(lite0, shown, act):
    """The first photograph is the reference of all four."""
    picture, ref = shown[0], act[:1]
    distance = ((act - ref) ** 2).sum((1, 2, 3)) / (ref**2).sum()
    check(fv.feature_match(LAYER, picture), lite0, shown, -distance)
    dot = (act * ref).sum(1)
    cosine = dot / np.linalg.norm(act, axis=1) / np.linalg.norm(ref, axis=1)
    check(
        fv.caricature(LAYER, picture, cosine_power=2),
        lite0,
        shown,
        (dot * np.maximum(cosine, 0.1) ** 2).mean((1, 2)),
    )
    g = gram(act)
    style = ((g - g[:1]) ** 2).sum((1, 2)) / (g[0] ** 2).sum()
    check(fv.style_match(LAYER, picture), lite0, shown, -style)
    rows = np.sort(act.reshape(4, 40, -1), axis=2)
    wanted = rows[:2].mean(0)
    check(fv.sort_match(LAYER, shown[:2]), lite0, shown, -((rows - wanted) ** 2).mean((1, 2)))
    x = shown.double().numpy()
    check(
        fv.input_difference(picture),
        lite0,
        shown[1:],
        np.sqrt(((x - x[0]) ** 2).mean((1, 2, 3)))[1:],
    )
    difference = np.abs(act - ref).mean((1, 2, 3))
    check(fv.activation_difference(LAYER), lite0, shown, difference)
    check(fv.activation_difference(LAYER, to=picture), lite0, shown, difference)


def test_relations(lite0, shown, act):
    g = gram(act).reshape(4, -1)
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    others = (g @ g.T).sum(1) - 1
    check(fv.diversity(LAYER), lite0, shown, -others / 3)
    a = act.reshape(4, -1)
    u = a / np.linalg.norm(a, axis=1, keepdims=True)
    check(fv.diversity(LAYER, measure="activation"), lite0, shown, -((u @ u.T).sum(1) - 1) / 3)
    expected = [
        -sum(2.5 ** -abs(i - j) * ((a[i] - a[j]) ** 2).mean() for j in range(4)) for i in range(4)
    ]
    check(fv.alignment(LAYER, decay=2.5), lite0, shown, np.array(expected))
    t = np.linspace(0, 1, 4)
    mixed = fv.interpolate(fv.channel(LAYER, 1), fv.channel(LAYER, 2))
    check(mixed, lite0, shown, (1 - t) * act[:, 1].mean((1, 2)) + t * act[:, 2].mean((1, 2)))


def test_alignment_of_nearly_equal_images_keeps_its_digits(lite0):
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    noise = torch.rand(9, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    images = (x + 1e-3 * noise).clamp(0, 1)
    with torch.no_grad():
        a = lite0.activations(images, LAYER)[LAYER].flatten(1).double().numpy()
    expected = [
        -sum(2.0 ** -abs(i - j) * ((a[i] - a[j]) ** 2).mean() for j in range(9)) for i in range(9)
    ]
    found = fv.alignment(LAYER)(lite0, images).detach().double().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("over", ["sample", "batch"])
def test_batchnorm_match_is_the_distance_of_the_inputs_statistics(lite0, shown, over):
    """From the *inputs* of the layers, by pre-hooks, as DeepInversion defines it."""
    norms = {n: m for n, m in lite0.net.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    stop = [i.name for i in lite0.layers()]
    stop = set(stop[: stop.index("_blocks.2") + 1])
    kept = {}
    handles = [
        m.register_forward_pre_hook(lambda m, i, n=n: kept.__setitem__(n, i[0].double().numpy()))
        for n, m in norms.items()
        if n in stop
    ]
    lite0(shown)
    for handle in handles:
        handle.remove()
    errors = []
    for name, x in kept.items():
        module = norms[name]
        mean, deviation = (
            module.running_mean.double().numpy(),
            (module.running_var.double() + module.eps).sqrt().numpy(),
        )
        axes = (2, 3) if over == "sample" else (0, 2, 3)
        m, s = x.mean(axes), x.std(axes)
        error = ((m - mean) / deviation) ** 2 + (s / deviation - 1) ** 2
        alive = module.weight.detach().abs().numpy()
        errors.append(error[..., alive > 1e-4 * alive.max()].mean(-1))
    assert len(errors) == 9
    check(fv.batchnorm_match(layer="_blocks.2", over=over), lite0, shown, -np.mean(errors, 0), 2e-3)


def test_batchnorm_match_is_guarded_where_a_channel_is_constant():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    with torch.no_grad():
        net[0].weight[1] = 0  # a dead channel: its deviation is zero, the root's slope infinite
        net[1].weight[2] = 0
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    value = fv.batchnorm_match()(fv.Model(net, size=4), images)
    assert torch.autograd.grad(value.sum(), images)[0].isfinite().all()
    with pytest.raises(UnitError, match="no batch-norm layer"):
        fv.batchnorm_match()(nets.tiny(), torch.rand(1, 2, 8, 8))


def test_batchnorm_match_stops_where_it_is_told(lite0):
    net = lite0.net
    ran = []
    lite0.layers((64, 64))  # the probing pass runs all
    handle = net._blocks[3].register_forward_hook(lambda *_: ran.append(1))
    fv.batchnorm_match(layer="_blocks.2")(lite0, torch.rand(1, 3, 64, 64))
    assert ran == []
    fv.batchnorm_match(layer="_blocks.4")(lite0, torch.rand(1, 3, 64, 64))
    handle.remove()
    assert ran == [1]


def test_text_match_is_the_cosine_of_the_embeddings():
    """A small pair of encoders with a shared space of four dimensions."""
    table = {"red": [1.0, 0, 0, 0], "a blue image": [0, 0, 2.0, 1.0]}
    encoder = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        nets.seeded(lambda: torch.nn.Linear(3, 4)),
    )
    model = fv.Model(encoder, size=8, text=lambda text: torch.tensor(table[text]))
    images = torch.rand(3, 3, 8, 8)
    features = encoder(images).detach().double().numpy()
    for text, vector in table.items():
        v = np.array(vector)
        expected = features @ v / np.linalg.norm(features, axis=1) / np.linalg.norm(v)
        check(fv.text_match(text), model, images, expected)
    result = fv.render(model, fv.text_match("red"), steps=40, transforms=())
    assert result.history[-1] > result.history[0]
    with pytest.raises(UnitError, match="no text encoder"):
        fv.text_match("red")(nets.tiny(), torch.rand(1, 2, 8, 8))


def test_tokens_class_token_patches_and_heads(tokens):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    a = hooked(tokens, "blocks.0", images)  # (2, 1 + 16, 12)
    check(fv.channel("blocks.0", 5, where="cls"), tokens, images, a[:, 0, 5])
    check(fv.channel("blocks.0", 5, where="patches"), tokens, images, a[:, 1:, 5].mean(1))
    check(fv.neuron("blocks.0", 5, 2, 3), tokens, images, a[:, 1 + 2 * 4 + 3, 5])
    check(fv.neuron("blocks.0", 5, 16), tokens, images, a[:, 16, 5])
    v = RNG.normal(size=12)
    check(fv.direction("blocks.0", v, where="cls"), tokens, images, a[:, 0] @ v)
    check(fv.head("blocks.0", 1, 3), tokens, images, (a[:, :, 4:8] ** 2).mean((1, 2)))
    q = hooked(tokens, "blocks.1.norm", images)
    check(fv.head("blocks.1.norm", 0, 2, where="cls"), tokens, images, (q[:, 0, :6] ** 2).mean(1))
    check(fv.layer("blocks.0", where="patches"), tokens, images, (a[:, 1:] ** 2).mean((1, 2)))
    weights = tokens.layer("blocks.0.attn[1]")  # the attention itself, (queries, keys)
    assert weights.shape == (17, 17)
    for objective, message in [
        (fv.neuron("blocks.0", 5, 4, 0), "no position 4:0"),
        (fv.head("blocks.0", 3, 3), "no head 3"),
        (fv.head("blocks.0", 0, 5), "not a multiple of 5 heads"),
        (fv.channel("blocks.0", 5, where="20"), "no positions '20'"),
        (fv.channel("patch", 5, where="cls"), "not a sequence of class token and patch grid"),
    ]:
        with pytest.raises(UnitError, match=message):
            objective(tokens, images)


def test_ramps_follow_the_run(tiny):
    assert fv.ramp(1, 3)(tiny, torch.rand(2, 2, 8, 8)).tolist() == [3, 3]
    result = fv.render(tiny, fv.ramp(1, 3, 0.25, 0.75) + 0 * fv.l1() + 1e-9 * fv.l1(), steps=9)
    expected = np.interp(np.linspace(0, 1, 9), [0.25, 0.75], [1, 3])
    np.testing.assert_allclose(result.history[:, 0], expected, atol=1e-4)
    for text, message in [
        ("ramp(1)", "two to four numbers"),
        ("ramp(class:1, 2)", "two to four numbers"),
        ("ramp(0, 1, 0.5, 0.5)", "0 <= begin < end"),
    ]:
        with pytest.raises(fv.FeatvizError, match=message):
            fv.objective(text)


def test_reference_pictures_come_from_files_too(lite0, shown, tmp_path):
    from featviz.io import images, sheets

    images.save(sheets.to_pil(shown[0]), tmp_path / "cat.png")
    objective = fv.feature_match(LAYER, tmp_path / "cat.png")
    assert fv.objective(str(objective)) == objective
    value = objective(lite0, shown)
    assert value[0] > -1e-3
    assert (value[1:] < -0.1).all()
    (tmp_path / "text.png").write_text("no image")
    for source, message in [
        (tmp_path / "text.png", "not an image"),
        (tmp_path / "none.png", "No such file"),
        (torch.rand(1, 8, 8), r"the model takes \(N, 3, 224, 224\)"),
        (torch.full((3, 8, 8), float("nan")), "finite"),
    ]:
        with pytest.raises(fv.FeatvizError, match=message):
            fv.feature_match(LAYER, source)(lite0, shown[:1])


def test_relational_objectives_need_a_batch_and_keep_it_whole(lite0):
    with pytest.raises(UnitError, match="at least two"):
        fv.render(lite0, fv.diversity(LAYER), steps=2)
    result = fv.render(lite0, fv.diversity(LAYER), seed=[0, 1, 2], batch_size=1, steps=2, size=64)
    assert result.images.shape[0] == 3


@pytest.mark.parametrize("build", [
    lambda p: fv.caricature("output", p), lambda p: fv.feature_match("output", p),
    lambda p: fv.style_match("output", p), lambda p: fv.guide_match("output", p),
    lambda p: fv.sort_match("output", p), lambda p: fv.input_difference(p),
])  # fmt: skip
def test_references_outside_the_range_are_refused(build):
    model = fv.Model(torch.nn.Conv2d(3, 2, 1), size=8)
    images = torch.rand(1, 3, 8, 8)
    with pytest.raises(fv.FeatvizError, match=r"must be in \[0, 1\]"):
        build(images[0] * 255)(model, images)
    with pytest.raises(fv.FeatvizError, match="must be floats in"):
        build((images[0] * 255).byte())
    with pytest.raises(fv.FeatvizError, match=r"has shape|channels"):
        build(images[0].permute(1, 2, 0))(model, images)
    assert build(images[0])(model, images).isfinite().all()
