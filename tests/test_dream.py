"""DeepDream: octaves, steps, tiles, masks, guides, what can be read, videos."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import featviz as fv
from featviz.cli.main import main
from featviz.dreaming.api import octave_sizes, recolored
from featviz.dreaming.defaults import default_layer
from featviz.io import images, video
from featviz.optim import tiling
from featviz.optim.optimizers import normalized
from featviz.param import Canvas
from featviz.resample import resize
from featviz.transforms import Roll, prepare
from tests import nets

CPU = torch.device("cpu")
FAST = {"octaves": 2, "steps": 2, "jitter": 2}


def picture(*size, channels=3, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, channels, *size, generator=generator)


@pytest.fixture(scope="module")
def rgb() -> fv.Model:
    return nets.tiny(channels=3)


# ---- parts


def test_roll_is_exact_cyclic_and_belongs_to_the_sample():
    batch = picture(9, 14, batch=2)
    roll = prepare([Roll(3)], [4, 5], 20, (9, 14), CPU)
    seen = set()
    for step in range(20):
        moved = roll(batch, step)
        for i in range(2):
            found = [
                (y, x)
                for y in range(-3, 4)
                for x in range(-3, 4)
                if torch.equal(moved[i], batch[i].roll((y, x), (1, 2)))
            ]
            assert len(found) == 1
            seen.add(found[0])
        alone = prepare([Roll(3)], [5], 20, (9, 14), CPU)(batch[1:], step)
        assert torch.equal(alone, moved[1:])
    assert len(seen) > 20
    assert {y for y, _ in seen} == {x for _, x in seen} == set(range(-3, 4))


def test_roll_by_a_fraction_its_text_and_what_it_refuses():
    tape = Roll(0.5).draw(torch.Generator().manual_seed(0), 500, (8, 20))
    assert tape.abs().amax(0).tolist() == [4, 10]
    assert fv.transforms.parse("roll:8") == (Roll(8),)
    assert fv.transforms.text([Roll(8)]) == "roll:8"
    with pytest.raises(fv.FeatvizError, match="roll must not be negative"):
        Roll(-1)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("by", ["mean", "max", "std"])
def test_normalized_steps_in_closed_form(by, decay):
    gradient = picture(5, 7, batch=2, seed=1) - 0.4
    gradient[1] *= 1e-4  # a step has the same size whatever the score's scale
    gradient[0, :, :2] = 0  # as outside a mask: does not count
    start = picture(5, 7, batch=2, seed=2)
    leaf = start.clone().requires_grad_()
    leaf.grad = gradient.clone()
    normalized(0.25, by=by, decay=decay)([leaf]).step()
    for i in range(2):
        g = gradient[i].double().numpy()
        free = g[g != 0]
        size = {"mean": np.abs(free).mean(), "max": np.abs(free).max(), "std": free.std()}[by]
        expected = ((1 - decay) * start[i].double() - torch.tensor(0.25 * g / size)).float()
        torch.testing.assert_close(leaf.detach()[i], expected, rtol=1e-4, atol=1e-6)


def test_normalized_steps_without_a_gradient_stay():
    leaf = torch.ones(1, 3).requires_grad_()
    leaf.grad = torch.zeros(1, 3)
    normalized(1.0)([leaf]).step()
    assert torch.equal(leaf.detach(), torch.ones(1, 3))
    with pytest.raises(fv.FeatvizError, match="no normalization 'sum'"):
        normalized(1.0, by="sum")
    for wrong in ({"lr": 0.0}, {"lr": 1.0, "decay": 1.0}, {"lr": 1.0, "decay": -0.1}):
        with pytest.raises(fv.FeatvizError, match="normalized needs lr > 0 and 0 <= decay < 1"):
            normalized(**wrong)


def test_the_decay_of_normalized_steps_falls_with_the_rate():
    """As the schedule of a run scales the rate: with half of it, half of the fraction goes."""
    leaf = torch.ones(1, 3).requires_grad_()
    optimizer = normalized(0.2, decay=0.1)([leaf])
    leaf.grad = torch.zeros(1, 3)
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    torch.testing.assert_close(leaf.detach(), torch.full((1, 3), 0.95))


def test_a_canvas_is_its_picture_and_stays_in_range(rgb):
    start = picture(8, 10)
    canvas = Canvas(images=start)
    assert torch.equal(canvas.image(canvas.init([0])), start)
    seen = []
    made = fv.optimize(
        rgb, fv.layer("second"), param=canvas, steps=3, seeds=[0], optimizer=normalized(0.5),
        callbacks=[lambda step: seen.append(step.images)], importance=False,
    )  # fmt: skip
    assert made.importance is None
    assert torch.equal(seen[0], start)  # what was scored, not what the step made of it
    assert not torch.equal(seen[1], start)
    assert made.images.min() >= 0
    assert made.images.max() <= 1
    assert not torch.equal(canvas.images, made.images)
    with pytest.raises(fv.FeatvizError, match="Canvas takes float images"):
        Canvas(images=torch.zeros(3, 4, dtype=torch.uint8))


# ---- octaves


def test_octaves_carry_what_they_changed_up(rgb):
    """Against the scheme written out with the loop alone."""
    original = picture(24, 33)
    goal, update = fv.layer("second"), normalized(0.03)
    made = fv.dream(rgb, original, goal, octaves=3, octave_scale=1.5, steps=2, lr=0.03, jitter=1)
    assert octave_sizes((24, 33), 3, 1.5) == [(11, 15), (16, 22), (24, 33)]
    carried = torch.zeros(1, 3, 11, 15)
    for size in [(11, 15), (16, 22), (24, 33)]:
        base = resize(original, size, antialias=True)
        start = (base + resize(carried, size)).clamp(0, 1)
        found = fv.optimize(
            rgb, goal, param=Canvas(images=start), transforms=[Roll(1)], steps=2, seeds=[0],
            optimizer=update, redirect=0,
        )  # fmt: skip
        carried = found.images - base
    torch.testing.assert_close(made.images, found.images)
    assert made.images.shape == (1, 3, 24, 33)
    assert made.history.shape == (6, 1)
    assert made.scores > goal(rgb, original)
    assert made.settings["verb"] == "dream"


def test_a_picture_does_not_depend_on_the_others(rgb):
    several = picture(16, 20, batch=2)
    both = fv.dream(rgb, several, "layer:second", seed=[3, 8], **FAST)
    alone = fv.dream(rgb, several[1], "layer:second", seed=8, **FAST)
    assert torch.equal(both.images[1:], alone.images)
    again = fv.dream(rgb, several[1], "layer:second", seed=8, **FAST)
    assert torch.equal(again.images, alone.images)


def test_ctrl_c_keeps_the_detail_so_far(rgb):
    def stop(step):
        raise KeyboardInterrupt

    original = picture(16, 20)
    made = fv.dream(rgb, original, "layer:second", callbacks=[stop], **FAST)
    assert made.interrupted
    assert made.images.shape == original.shape
    assert not torch.equal(made.images, original)


def test_the_default_objective_is_a_block_at_two_thirds(lite0):
    assert default_layer(lite0) == "_blocks.10"
    assert default_layer(nets.tiny()) in {i.name for i in nets.tiny().layers()}
    made = fv.dream(lite0, picture(32, 40), octaves=1, steps=1)
    assert made.objectives == ["layer:_blocks.10"]


# ---- mask, guide, colours


@pytest.mark.parametrize("batch", [1, 2])
def test_outside_the_mask_nothing_changes(rgb, batch):
    original = picture(18, 26, batch=batch)
    mask = torch.zeros(18, 26)
    mask[4:12, 6:20] = 1
    made = fv.dream(rgb, original, "layer:second", mask=mask, lr=0.05, **FAST)
    outside = (mask == 0).expand_as(original)
    assert torch.equal(made.images[outside], original[outside])
    assert (made.images - original).abs()[~outside].mean() > 0.02


def test_a_guide_raises_the_match(rgb):
    original, guide = picture(16, 20), picture(12, 12, seed=9)[0]
    goal = fv.guide_match("second", guide)
    made = fv.dream(rgb, original, "layer:second", guide=guide, **FAST)
    assert made.objectives == [str(goal)]
    assert goal(rgb, made.images) > goal(rgb, original)
    with pytest.raises(fv.FeatvizError, match="a guide needs an objective with one layer"):
        fv.dream(rgb, original, "layer:first + layer:second", guide=guide)


def test_guide_match_is_the_mean_of_the_best_products(rgb, monkeypatch):
    shown, guide = picture(8, 8), picture(8, 8, seed=3)
    own, theirs = (rgb.activations(x, ["second"])["second"].flatten(2)[0] for x in (shown, guide))
    expected = (own.T @ theirs).amax(1).mean()
    for most in (1 << 24, 20):  # whole, and in pieces
        monkeypatch.setattr("featviz.objectives.guide._MAX_PRODUCTS", most)
        torch.testing.assert_close(fv.guide_match("second", guide[0])(rgb, shown)[0], expected)


def test_preserved_colours_change_only_the_luminance(rgb):
    original = picture(16, 20) * 0.4 + 0.2
    made = fv.dream(rgb, original, "layer:second", colors="preserve", lr=0.002, **FAST)
    ratio = made.images / original
    assert (ratio.amax(1) - ratio.amin(1)).max() < 1e-5
    assert ratio.std() > 0.001
    assert torch.equal(recolored(original, original), original)


# ---- tiles


@pytest.mark.parametrize(("side", "tile"), [(512, 512), (100, 512), (640, 512), (41, 10), (7, 3)])
def test_tiles_are_equal_flush_and_cover(side, tile):
    pieces = tiling.tile_axis(side, tile)
    lengths = {p.stop - p.start for p in pieces}
    assert lengths == {min(side, tile)}
    assert len(pieces) == -(-side // tile)
    assert pieces[0].start == 0
    assert pieces[-1].stop == side
    assert set().union(*(range(p.start, p.stop) for p in pieces)) == set(range(side))


def ascend(model, start, goal, **given):
    return fv.optimize(
        model, goal, param=Canvas(images=start), steps=1, seeds=[0], optimizer=normalized(1e-3),
        redirect=0, **given,
    )  # fmt: skip


def test_tiles_equal_the_whole_in_their_interior(rgb):
    """The gradient of two layers reaches three pixels: further from borders it is the same."""
    start = picture(40, 48) * 0.5 + 0.25
    whole, cut = (ascend(rgb, start, fv.layer("first"), tile=t).images for t in (None, 16))
    far = (whole - cut).abs().amax((0, 1))
    assert len(tiling.tile_axis(40, 16)) == len(tiling.tile_axis(48, 16)) == 3
    assert far[16:24, 19:29].max() < 2e-4  # sizes of steps differ by what the borders do
    assert far[:10, :12].max() < 2e-4


def test_the_score_of_tiles_is_the_mean_of_theirs(rgb):
    start = picture(16, 32)
    goal = fv.layer("second")
    made = ascend(rgb, start, goal, tile=16)
    parts = [goal(rgb, start[..., :16]), goal(rgb, start[..., 16:])]
    torch.testing.assert_close(made.history[0], torch.stack(parts).mean(0))


def test_no_seams_at_borders_of_tiles(lite0):
    """On a texture that is the same all over: tiles change borders no more than the rest."""
    wave = torch.arange(96) * (2 * torch.pi / 8)
    texture = (0.5 + 0.2 * wave.sin()[:, None] * wave.cos()).expand(1, 3, 96, 96)
    border = torch.zeros(96, 96, dtype=torch.bool)
    for at in (32, 64):
        border[at - 1 : at + 1] = border[:, at - 1 : at + 1] = True

    def excess(jitter):
        given = {"octaves": 1, "steps": 16, "jitter": jitter}
        cut, plain = (
            fv.dream(lite0, texture, "layer:_blocks.2", tile=t, **given) for t in (32, None)
        )
        change = (cut.images - plain.images).abs().mean((0, 1))
        return change[border].mean() / change[~border].mean()

    assert excess(16) < 1
    assert excess(0) > 1.3  # what the shifts are for


def test_a_network_of_one_size_dreams_into_larger_pictures_by_tiles():
    def make():
        head = nn.Linear(4 * 16 * 16, 3)
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), head)

    model = fv.Model(nets.seeded(make), size=16, channels=3)
    original = picture(20, 37)
    # Without shifts, which bring other pixels together and so change the score by themselves.
    given = {"octaves": 1, "steps": 3, "jitter": 0}
    made = fv.dream(model, original, "layer:1", tile=16, **given)
    assert made.images.shape == original.shape
    assert made.history[-1] > made.history[0]
    with pytest.raises(fv.FeatvizError, match=r"cannot take images .* set tile"):
        fv.dream(model, original, "layer:1", **given)


def test_tiles_refuse_what_reads_the_clean_picture(rgb):
    goal = fv.layer("second") - 1e-3 * fv.total_variation()
    with pytest.raises(fv.FeatvizError, match=r"reads the whole clean image.*layer=input"):
        fv.dream(rgb, picture(16, 20), goal, tile=8, **FAST)
    goal = fv.layer("second") - 1e-3 * fv.total_variation(layer="input")
    assert fv.dream(rgb, picture(16, 20), goal, tile=8, **FAST).images.shape == (1, 3, 16, 20)


# ---- what can be read


def test_gray_deep_turned_and_transparent_pictures(tmp_path):
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1300
    Image.fromarray(values).save(tmp_path / "deep.png")
    expected = torch.tensor(values / 65535).float()
    for channels in (1, 3):
        found = images.read(tmp_path / "deep.png", channels)
        torch.testing.assert_close(found, expected.expand(1, channels, 6, 8))
    assert images.read(tmp_path / "deep.png", 3, (3, 3)).shape == (1, 3, 3, 3)
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "deep.tiff")
    torch.testing.assert_close(images.read(tmp_path / "deep.tiff", 1)[0, 0], expected)
    Image.fromarray(expected.numpy()).save(tmp_path / "float.tiff")
    torch.testing.assert_close(images.read(tmp_path / "float.tiff", 1)[0, 0], expected)
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "wide.tiff")
    with pytest.raises(fv.FeatvizError, match="neither 16 bits nor in"):
        images.read(tmp_path / "wide.tiff", 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I"])
def test_pictures_of_every_mode_are_dreamed_into(rgb, mode, tmp_path):
    source = Image.effect_mandelbrot((20, 12), (-2, -1, 1, 1), 9).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    source.save(tmp_path / "a.tiff", exif=exif)
    made = fv.dream(rgb, tmp_path / "a.tiff", "layer:second", **FAST)
    assert made.images.shape == (1, 3, 20, 12)
    direct = fv.dream(rgb, source, "layer:second", **FAST)
    assert direct.images.shape == (1, 3, 12, 20)


def test_pictures_beyond_pillows_limit_are_refused(tmp_path, monkeypatch):
    Image.new("L", (40, 40)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(fv.FeatvizError, match="over 200 pixels, Pillow's limit"):
        images.read(tmp_path / "large.png", 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": torch.zeros(3, 8, 8, dtype=torch.uint8)}, "divide by 255"),
        ({"image": torch.full((3, 8, 8), 200.0)}, "must be in \\[0, 1\\]"),
        ({"image": torch.full((3, 8, 8), torch.nan)}, "must be in \\[0, 1\\]"),
        ({"image": torch.zeros(2, 8, 8)}, "shape \\(B, 3, H, W\\)"),
        ({"image": 7}, "a file, a Pillow image, an array or a float tensor"),
        ({"image": "nowhere.png"}, "No such file"),
        ({"octaves": 0}, "octaves must be positive"),
        ({"octaves": 9}, "the smallest of 9 octaves"),
        ({"octave_scale": 1}, "octave_scale must be more than 1"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"lr": 0}, "lr must be positive"),
        ({"jitter": -1}, "jitter must not be negative"),
        ({"normalize": "sum"}, "no normalize 'sum': use mean, max, std"),
        ({"tile": 0}, "tile must be at least 8"),
        ({"colors": "gray"}, "no colors 'gray'"),
        ({"precision": "fp8"}, "no precision"),
        ({"mask": torch.zeros(3, 8, 8)}, "mask must have shape \\(B, 1, H, W\\)"),
        ({"objective": "layer:third"}, "no layer 'third'"),
    ],
    ids=str,
)
def test_what_cannot_work_is_one_line(rgb, given, message):
    arguments = {"image": picture(16, 20), "objective": "layer:second", **given}
    with pytest.raises(fv.FeatvizError, match=message) as caught:
        fv.dream(rgb, **arguments)
    assert "\n" not in str(caught.value)


# ---- video


def test_a_video_goes_on_where_it_ended(rgb, tmp_path):
    given = {"objective": "layer:second", "zoom": 1.1, "rotate": 3, "octaves": 1, "jitter": 2}
    start = picture(15, 21)
    whole = list(fv.dream_video(rgb, start, frames=4, folder=tmp_path / "whole", **given))
    assert [f.shape for f in whole] == [(3, 15, 21)] * 4
    for _ in fv.dream_video(rgb, start, frames=2, folder=tmp_path / "parts", **given):
        pass
    made = []

    def count(step):
        made.append(step.index)

    again = fv.dream_video(
        rgb, start, frames=4, folder=tmp_path / "parts", callbacks=[count], **given
    )
    assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))
    assert len(made) == 2 * 4  # two frames of four steps
    kept = images.read_settings(tmp_path / "parts" / "frame-000003.png")
    assert kept["frame"] == 3
    with pytest.raises(fv.FeatvizError, match="a frame of another video"):
        list(fv.dream_video(rgb, start, frames=4, folder=tmp_path / "parts", **given, seed=1))
    with pytest.raises(fv.FeatvizError, match="a frame of another video"):
        list(fv.dream_video(rgb, 1 - start, frames=4, folder=tmp_path / "parts", **given))


def test_frames_are_enlarged_about_the_centre(rgb):
    still = {"objective": "layer:second", "octaves": 1, "steps": 1, "lr": 1e-6, "jitter": 0}
    start = torch.zeros(1, 3, 21, 31)
    start[..., 8:13, 13:18] = 0.8  # five pixels wide, about the centre
    _, second = fv.dream_video(rgb, start, frames=2, zoom=2, **still)
    wide = second[0] > 0.4
    assert wide.sum() == pytest.approx(100, rel=0.2)
    assert wide.flip(0, 1).equal(wide)


@pytest.mark.parametrize("ending", ["mp4", "gif", "webp"])
@pytest.mark.parametrize("size", [(16, 24), (15, 21)])
def test_videos_are_read_back(tmp_path, ending, size):
    shades = [0.2, 0.5, 0.8]
    path = tmp_path / f"a.{ending}"
    if ending == "mp4":
        av = pytest.importorskip("av")
    assert video.write(path, (torch.full((3, *size), s) for s in shades), fps=10) == path
    if ending == "mp4":
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.average_rate == 10
            found = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
        assert found[0].shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    else:
        with Image.open(path) as film:
            assert film.n_frames == 3
            found = []
            for k in range(3):
                film.seek(k)
                found.append(np.asarray(film.convert("RGB")))
        assert found[0].shape == (*size, 3)
    for frame, shade in zip(found, shades, strict=True):
        assert np.abs(frame / 255 - shade).max() < 0.03
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_videos_that_cannot_be_written(tmp_path, monkeypatch):
    frame = [torch.zeros(3, 8, 8)]
    for path, message in [("a.avi", "a video ends in"), ("no/a.mp4", "there is no folder")]:
        with pytest.raises(fv.FeatvizError, match=message):
            video.write(tmp_path / path, frame)
    with pytest.raises(fv.FeatvizError, match="there are no frames"):
        video.write(tmp_path / "a.gif", [])
    with pytest.raises(fv.FeatvizError, match="fps must be positive"):
        video.write(tmp_path / "a.gif", frame, fps=0)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(fv.FeatvizError, match="MP4 needs PyAV"):
        video.write(tmp_path / "a.mp4", frame)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"frames": 0}, "frames must be positive"),
        ({"zoom": 0}, "zoom must be positive"),
        ({"rotate": float("inf")}, "rotate must be at most 360"),
        ({"image": picture(8, 8, batch=2)}, "starts from one image"),
        ({"folder": "no/where/at/all"}, "parent folder does not exist"),
    ],
    ids=str,
)
def test_videos_refuse_before_the_first_frame(rgb, given, message):
    with pytest.raises(fv.FeatvizError, match=message):
        fv.dream_video(rgb, **{"image": picture(8, 8), "frames": 2, **given})


# ---- command line


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    return status, *capsys.readouterr()


QUICK = ["--size", 160, "--octaves", 2, "--steps", 1, "--device", "cpu"]


def test_the_command_line(tmp_path, capsys):
    Image.effect_mandelbrot((60, 30), (-2, -1, 1, 1), 9).save(tmp_path / "in.png")
    out, film = tmp_path / "out.png", tmp_path / "out.gif"
    given = ["dream", "efficientnet_lite0", tmp_path / "in.png", "-o", out, *QUICK]
    given += ["--objective", "layer:_blocks.2", "--tile", 64, "--seed", 3]
    status, printed, err = run(capsys, *given, "--video", film, "--frames", 2, "--json")
    assert status == 0, err
    document = json.loads(printed)
    assert document["files"] == [str(out), str(film)]
    assert nets.opened(out).size == (160, 80)
    kept = images.read_settings(out)
    assert kept["verb"] == "dream"
    assert kept["tile"] == 64
    assert kept["seed"] == [3]
    assert sorted(p.name for p in (tmp_path / "out.gif.frames").iterdir()) == [
        "frame-000000.png",
        "frame-000001.png",
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-o", "a.txt"], "names no image format"),
        (["--video", "a.avi"], "a video ends in"),
        (["-o", "a.png", "--size", "0"], "size must be positive"),
        (["-o", "a.png", "--objective", "layer:nowhere"], "no layer 'nowhere'"),
        (["-o", "a.png", "--octaves", "20"], "the smallest of 20 octaves"),
        (["-o", "a.png", "--octaves", "8"], "this is the smallest of 8 octaves: use fewer"),
        (["-o", "a.png", "--guide", "nowhere.png"], "nowhere.png"),
    ],
    ids=str,
)
def test_the_command_line_refuses_in_one_line(tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (160, 120), "teal").save("in.png")
    status, out, err = run(capsys, "dream", "efficientnet_lite0", "in.png", *more)
    assert status == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert message in err
    assert not (tmp_path / "a.png").exists()
