"""Dataset examples: against brute force, for every form of dataset, in constant memory."""

import io
import json
import math
import sys

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import nn

import featviz as fv
from featviz.cli.main import main
from featviz.dataset_examples import cache as album
from featviz.dataset_examples import receptive_field as receptive
from featviz.errors import FeatvizError, FeatvizWarning, LayerError
from featviz.io import images as pictures
from featviz.io import sheets
from featviz.io.dataset import ImageDataset
from tests import nets

PICTURES = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry", "retina")


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    """24 crops of real photographs (24, 3, 224, 224)."""
    found = []
    for name in PICTURES:
        try:
            pixels = getattr(skimage.data, name)()
        except Exception:  # not bundled, and not to be downloaded here
            continue
        image = torch.tensor(pixels[..., :3].copy()).movedim(-1, 0).float() / 255
        high, wide = (s - 224 for s in image.shape[1:])
        for y, x in ((0, 0), (0, wide), (high, 0), (high, wide), (high // 2, wide // 2), (9, 40)):
            found.append(image[:, y : y + 224, x : x + 224])
    assert len(found) >= 24
    return torch.stack(found[:24])


@pytest.fixture(scope="module")
def small() -> torch.Tensor:
    """40 images for the tiny networks."""
    return torch.rand(40, 2, 8, 8, generator=torch.Generator().manual_seed(4))


def brute(values: np.ndarray, k: int, largest: bool) -> np.ndarray:
    """Return the indices (units, k) of a table of values (N, units)."""
    return np.argsort(-values.T if largest else values.T, axis=1, kind="stable")[:, :k]


def test_a_whole_layer_is_what_brute_force_finds(lite0, crops):
    layer, k = "_blocks.10", 5
    units = lite0.layer(layer).units
    goals = [fv.channel(layer, i) for i in range(units)]
    found = fv.examples(lite0, crops, goals, k=k, correlate=True)
    with torch.no_grad():
        maps = torch.cat([lite0.activations(c, [layer])[layer] for c in crops.split(4)])
    table = maps.double().mean((2, 3)).numpy()
    assert found.objectives == [str(g) for g in goals]
    assert found.count == len(crops)
    field = receptive.measure(lite0, layer)
    for side, ranked in (("top", found.top), ("bottom", found.bottom)):
        wanted = brute(table, k, side == "top")
        np.testing.assert_array_equal(ranked.indices, wanted)
        np.testing.assert_allclose(
            ranked.values, np.take_along_axis(table.T, wanted, 1), rtol=1e-4, atol=1e-5
        )
        seen = maps.numpy()[wanted, np.arange(units)[:, None]].reshape(units, k, -1)
        place = seen.argmax(2) if side == "top" else seen.argmin(2)
        y, x = np.divmod(place, maps.shape[3])
        np.testing.assert_array_equal(ranked.positions, np.stack([y, x], 2))
        torch.testing.assert_close(ranked.boxes, field.boxes(ranked.positions))
        images, cut = found.images(7, side), found.crops(str(goals[7]), side)
        torch.testing.assert_close(images, crops[wanted[7]], atol=1e-6, rtol=0)
        for image, crop, (top, left, low, right) in zip(
            images, cut, ranked.boxes[7].tolist(), strict=True
        ):
            assert torch.equal(crop, image[:, top:low, left:right])
    for q in (0.05, 0.5, 0.9):
        np.testing.assert_allclose(
            found.statistics.quantile(q), np.quantile(table, q, axis=0), rtol=1e-4, atol=1e-5
        )
    np.testing.assert_allclose(found.statistics.mean, table.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.statistics.std, table.std(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.correlation(layer), np.corrcoef(table.T), atol=1e-4)
    assert len(found.cache) == len(np.unique([found.top.indices, found.bottom.indices]))


MIXED = [
    fv.channel("first", 2),
    fv.channel("first", 0),
    fv.channel("second", 4, reduce="max"),
    fv.channel("second", 1, reduce="top3", where="1:3,:"),
    fv.channel("second", 3, reduce="top3", where="1:3,:"),
    fv.channel("second", 0, reduce="norm"),
    -fv.channel("first", 1),
    fv.channel("head", 1),
    fv.channel("head", 0),
    fv.neuron("first", 1, 2, 5),
    fv.neuron("first", 0),
    fv.layer("second"),
    fv.direction("first", [1, -1, 0.5, 2]),
    fv.class_logit(2),
    fv.class_logit(0),
    fv.log_probability(1),
    fv.probability(1),
    fv.probability(2),
    fv.margin(1),
    fv.channel("second", 1) - 0.5 * fv.channel("first", 1),
    -0.1 * fv.total_variation(),
    fv.channel("image", 1),
]


@pytest.mark.parametrize("batch", [1, 7, 16])
def test_values_are_the_objectives_own(tiny, small, batch):
    found = fv.examples(tiny, small, MIXED, k=4, batch_size=batch)
    for unit, goal in enumerate(MIXED):
        with torch.no_grad():
            values = torch.cat([goal(tiny, image[None]) for image in small]).numpy()
        for ranked, largest in ((found.top, True), (found.bottom, False)):
            wanted = brute(values[:, None], 4, largest)[0]
            assert ranked.indices[unit].tolist() == wanted.tolist(), goal
            np.testing.assert_allclose(ranked.values[unit], values[wanted], rtol=1e-4, atol=1e-6)


def test_where_units_respond(tiny, small):
    goals = [
        fv.channel("first", 2),
        -fv.channel("first", 2),
        fv.channel("first", 2, reduce="mean_square"),
        fv.channel("first", 2, where="2:4,5:8"),
        fv.neuron("first", 1, 2, 5),
        fv.class_logit(1),
        fv.channel("image", 1),
    ]
    found = fv.examples(tiny, small, goals, k=3, fraction=1.0)
    with torch.no_grad():
        maps = tiny.activations(small, ["first"])["first"][:, 2].numpy()

    def places(unit, ranked, pick, change=lambda m: m):
        flat = [pick(change(maps[i])) for i in ranked.indices[unit]]
        return [list(divmod(int(p), 8)) for p in flat]

    assert found.top.positions[0].tolist() == places(0, found.top, np.argmax)
    assert found.bottom.positions[0].tolist() == places(0, found.bottom, np.argmin)
    assert found.top.positions[1].tolist() == places(1, found.top, np.argmin)
    assert found.top.positions[2].tolist() == places(2, found.top, np.argmax, np.square)
    inside = np.full((8, 8), -np.inf)
    inside[2:4, 5:8] = 0
    assert found.top.positions[3].tolist() == places(3, found.top, np.argmax, lambda m: m + inside)
    assert found.top.positions[4].tolist() == [[2, 5]] * 3
    assert found.top.boxes[4].tolist() == [[1, 4, 4, 7]] * 3  # a 3 x 3 convolution
    assert (found.top.positions[5] == -1).all()
    assert found.top.boxes[5].tolist() == [[0, 0, 8, 8]] * 3
    y, x = found.top.positions[6, 0].tolist()
    assert found.top.boxes[6, 0].tolist() == [y, x, y + 1, x + 1]
    corner = found.top.boxes[0][(found.top.positions[0] == 0).any(1)]
    assert (corner >= 0).all()  # cut off at the border


def exact() -> fv.Model:
    return fv.Model(nn.Identity(), size=4, channels=1)


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_of_equal_values_the_first_ranks_higher(batch):
    levels = [0.5, 1, 0.25, 1, 0.5, 0, 1, 0, 0.25, 1]
    images = torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    found = fv.examples(exact(), images, "channel:output:0:reduce=max", k=5, batch_size=batch)
    assert found.top.indices.tolist() == [[1, 3, 6, 9, 0]]
    assert found.bottom.indices.tolist() == [[5, 7, 2, 8, 0]]
    assert found.top.values.tolist() == [[1, 1, 1, 1, 0.5]]


def test_nan_never_ranks():
    model = fv.Model(nets.Explodes(0.6), size=4, channels=3)
    levels = torch.tensor([0.1, 0.9, 0.3, 0.8, 0.5])
    images = levels.view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    found = fv.examples(model, images, "channel:body:0", k=9, batch_size=2)
    assert found.top.indices.tolist() == [[4, 2, 0, -1, -1]]  # -sqrt(0.6 - mean)
    assert found.bottom.indices.tolist() == [[0, 2, 4, -1, -1]]
    assert found.top.values[0, 3:].isnan().all()
    assert found.statistics.count.tolist() == [3]
    assert len(found.images(0)) == 3
    assert sorted(found.sources) == [0, 2, 4]
    json.dumps(found.record, allow_nan=False)


def test_fewer_images_than_asked_for(tiny, small, tmp_path):
    found = fv.examples(tiny, [(small[0], 3), (small[1], 1)], MIXED[:2], k=9)
    assert found.top.values.shape == (2, 2)
    assert found.images(1, "bottom").shape == (2, 2, 8, 8)
    assert found.bottom.indices.flip(1).tolist() == found.top.indices.tolist()
    with pytest.raises(FeatvizError, match="cannot draw"):
        found.save(tmp_path / "two.png")  # two channels have no colours


class Mapped(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], 7


class Streamed(torch.utils.data.IterableDataset):
    def __init__(self, images):
        self.images = images

    def __iter__(self):
        return iter([(image, 7) for image in self.images])


def in_colour(size=8) -> fv.Model:
    return fv.Model(nets.tiny(channels=3).net, mean=0.5, std=0.25, size=size, channels=3)


@pytest.fixture(scope="module")
def eight_bit() -> torch.Tensor:
    levels = torch.randint(0, 256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(8))
    return levels.float() / 255


@pytest.fixture(scope="module")
def folder(eight_bit, tmp_path_factory):
    place = tmp_path_factory.mktemp("pictures")
    (place / "deep").mkdir()
    for i, image in enumerate(eight_bit):
        sheets.to_pil(image).save(place / ("deep" if i > 3 else ".") / f"{'edcbaf'[i]}.png")
    (place / "notes.txt").write_text("no image")
    return place


def forms(eight_bit, folder):
    pixels = (eight_bit * 255).round().to(torch.uint8)
    shown = [sheets.to_pil(image) for image in eight_bit]
    files = []
    for picture in shown:
        buffer = io.BytesIO()
        picture.save(buffer, "png")
        files.append(buffer.getvalue())
    return {
        "tensor": eight_bit,
        "whole numbers": list(pixels),
        "list": list(eight_bit),
        "numpy": list(pixels.movedim(1, -1).numpy()),
        "pillow": shown,
        "map": Mapped(eight_bit),
        "iterable": Streamed(shown),
        "generator": (image for image in eight_bit),
        "rows": [{"label": 3, "image": p} for p in shown],
        "another column": [{"label": 3, "photo": p} for p in shown],
        "bytes": [{"image": {"bytes": f, "path": None}} for f in files],
    }


def test_every_form_of_data_set(eight_bit, folder):
    model, goal = in_colour(), fv.channel("second", 1)
    wanted = fv.examples(model, eight_bit, goal, k=2)
    for name, dataset in forms(eight_bit, folder).items():
        found = fv.examples(model, dataset, goal, k=2)
        torch.testing.assert_close(found.top.values, wanted.top.values, msg=name)
        assert found.top.indices.tolist() == wanted.top.indices.tolist(), name
        assert torch.equal(found.images(0), wanted.images(0)), name
        assert set(found.sources.values()) == {str(i) for i in found.sources}


def test_folders_and_files(eight_bit, folder):
    model, goal = in_colour(), fv.channel("second", 1)
    found = fv.examples(model, folder, goal, k=6)
    names = ["b.png", "c.png", "d.png", "deep/a.png", "deep/f.png", "e.png"]
    assert [found.sources[i] for i in range(6)] == names
    own = fv.examples(model, eight_bit, goal, k=6)
    order = [3, 2, 1, 4, 5, 0]  # where each file's image is in the tensor
    assert [order[i] for i in found.top.indices[0]] == own.top.indices[0].tolist()
    paths = [folder / n for n in names]
    listed = fv.examples(model, paths, goal, k=6)
    assert listed.top.indices.tolist() == found.top.indices.tolist()
    assert listed.sources[0] == str(paths[0])
    single = fv.examples(model, folder / "b.png", goal)
    assert single.sources == {0: "b.png"}
    assert single.count == 1


@pytest.mark.filterwarnings("ignore")
def test_hugging_face_data_sets(eight_bit, folder):
    datasets = pytest.importorskip("datasets")
    model, goal = in_colour(), fv.channel("second", 1)
    wanted = fv.examples(model, eight_bit, goal, k=2)
    rows = {"label": list(range(6)), "image": [sheets.to_pil(i) for i in eight_bit]}
    features = datasets.Features({"label": datasets.Value("int64"), "image": datasets.Image()})
    dataset = datasets.Dataset.from_dict(rows, features=features)
    encoded = dataset.cast_column("image", datasets.Image(decode=False))
    for given in (dataset, encoded, dataset.to_iterable_dataset()):
        found = fv.examples(model, given, goal, k=2)
        assert found.top.indices.tolist() == wanted.top.indices.tolist()
        assert torch.equal(found.images(0), wanted.images(0))


def test_images_are_cropped_and_resized():
    model = in_colour(size=16)
    wide = torch.zeros(3, 32, 96)
    wide[:, :, 32:64] = 1  # the central square
    found = fv.examples(model, [wide, sheets.to_pil(wide)], "channel:first:0", k=2)
    assert (found.images(0)[..., 1:-1] == 1).all()  # Pillow looks beyond the border of the crop


@pytest.mark.parametrize(("spatial", "channels"), [(1, 2), (3, 1)])
def test_signals_and_volumes(spatial, channels):
    model = nets.tiny(spatial, channels)
    data = torch.rand(20, channels, *model.size, generator=torch.Generator().manual_seed(1))
    found = fv.examples(model, data, ["channel:first:1", "class:2"], k=3, fraction=1.0)
    assert torch.equal(found.images(0), data[found.top.indices[0]])  # not in 8 bits
    assert found.top.positions.shape == (2, 3, spatial)
    middle = [b for b, p in zip(found.top.boxes[0], found.top.positions[0], strict=True)
              if ((p > 0) & (p < 7)).all()]  # fmt: skip
    for box in middle:
        assert (box[spatial:] - box[:spatial]).tolist() == [3] * spatial
    assert [c.shape[1:] for c in found.crops(1)] == [model.size] * 3


def test_tokens(tokens):
    data = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    goals = [fv.channel("blocks.0", 3), fv.neuron("blocks.0", 3, 0), fv.neuron("blocks.0", 2, 2, 1)]
    goals += [fv.channel("blocks.0", 3, where="patches")]
    found = fv.examples(tokens, data, goals, k=4)
    with torch.no_grad():
        units = tokens.activations(data, ["blocks.0"])["blocks.0"][..., 3]
    for index, position in zip(found.top.indices[0], found.top.positions[0].tolist(), strict=True):
        place = int(units[index].argmax()) - 1
        assert position == ([-1, -1] if place < 0 else list(divmod(place, 4)))
    assert (found.top.positions[1] == -1).all()  # the class token looks at everything
    assert found.top.boxes[1, 0].tolist() == [0, 0, 16, 16]
    assert found.top.positions[2].tolist() == [[2, 1]] * 4
    assert (found.top.positions[3] >= 0).all()


def test_memory_does_not_grow_with_the_number_of_images(tiny):
    k, units, count = 3, 4, 10_000
    held = []
    source = torch.Generator().manual_seed(0)
    state = {}

    def stream():
        for i in range(count):
            if i % 500 == 499:
                held.append((len(state["cache"]), state["cache"].nbytes))
            yield torch.rand(2, 8, 8, generator=source)

    made = album.ExampleCache

    class Watched(made):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            state["cache"] = self

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["featviz.dataset_examples.tally"], "ExampleCache", Watched)
        goals = [fv.channel("first", i) for i in range(units)]
        found = fv.examples(tiny, stream(), goals, k=k, batch_size=50)
    assert found.count == count
    assert max(n for n, _ in held) <= 2 * k * units
    assert max(b for _, b in held) <= 2 * k * units * 2 * 8 * 8 * 4
    assert sorted(found.cache._stored) == sorted(found.sources)
    assert found.statistics._counts.shape == (units, 2048)


def test_images_may_be_read_again_instead(folder, small, tiny):
    model, goal = in_colour(), fv.channel("second", 1)
    kept, again = (fv.examples(model, folder, goal, k=2, keep=k) for k in (True, False))
    assert again.cache.nbytes == 0 < kept.cache.nbytes
    assert torch.equal(kept.images(0), again.images(0))
    assert kept.sources == again.sources
    with pytest.raises(FeatvizError, match="only once: keep the images"):
        fv.examples(tiny, (i for i in small), "channel:first:0", keep=False)


def test_the_model_comes_back_untouched(tiny, small):
    tiny.net.train()
    kept = {name: t.clone() for name, t in tiny.net.state_dict().items()}
    small = small.clone().requires_grad_()
    fv.examples(tiny, small, MIXED, k=2)
    receptive.receptive_field(tiny, "second")
    assert tiny.net.training
    assert all(p.requires_grad and p.grad is None for p in tiny.net.parameters())
    assert not any(m._forward_hooks for m in tiny.net.modules())
    assert all(torch.equal(t, kept[name]) for name, t in tiny.net.state_dict().items())
    assert torch.is_grad_enabled()


def test_only_the_layers_that_are_needed_run(small):
    model = fv.Model(nets.seeded(nets.Deep), size=8, channels=3)
    data = torch.rand(5, 3, 8, 8)
    fv.examples(model, data, ["channel:blocks.1:0", "channel:blocks.2:0"], k=1)
    assert model.net.ran == 2  # the third is cut short


def test_a_file_that_cannot_be_read_is_named_and_skipped(folder, tmp_path):
    for file in folder.glob("*.png"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "broken.png").write_bytes((folder / "b.png").read_bytes()[:60])
    (tmp_path / "fake.jpg").write_text("no image at all")
    with pytest.warns(FeatvizWarning, match=r"2 of 6 images cannot be read: broken.png, fake.jpg"):
        found = fv.examples(in_colour(), tmp_path, "channel:first:0", k=9)
    assert found.count == 4
    assert list(found.skipped) == ["broken.png", "fake.jpg"]
    assert sorted(found.sources) == [0, 2, 3, 4]  # indices are those of the folder
    for file in tmp_path.glob("?.png"):
        file.unlink()
    with pytest.raises(FeatvizError, match="2 of 2 images cannot be read"):
        fv.examples(in_colour(), tmp_path, "channel:first:0")


@pytest.mark.parametrize(
    ("dataset", "given", "message"),
    [
        (None, {"k": 0}, "k must be positive"),
        (None, {"k": 1.5}, "k must be a whole number"),
        (None, {"batch_size": 0}, "batch_size must be positive"),
        (None, {"fraction": 0}, "fraction must be positive"),
        (None, {"precision": "fp8"}, "no precision 'fp8'"),
        (None, {"objective": "channel:frist:0"}, "did you mean 'first'"),
        (None, {"objective": "channel:first:4"}, "no channel 4"),
        (None, {"objective": ["channel:first:1", "channel:first:4"]}, "no channel 4"),
        (None, {"objective": "class:7"}, "no class 7"),
        (None, {"objective": []}, "at least one objective"),
        (None, {"objective": "diversity:first"}, "depends on the whole batch"),
        (None, {"objective": "channel:first:0 - diversity:first"}, "depends on the whole batch"),
        (
            None,
            {"objective": "per_sample(channel:first:0, channel:first:1)"},
            "depends on the whole batch",
        ),
        ([], {}, "no images"),
        ("nowhere", {}, "no folder 'nowhere'"),
        (3, {}, "not int"),
        ([torch.zeros(2, 8)], {}, "expected"),
        ([torch.zeros(3, 8, 8)], {}, "image 0: image of shape"),
        ([torch.full((2, 8, 8), 200.0)], {}, r"must be in \[0, 1\], not from 200"),
        ([torch.full((2, 8, 8), math.nan)], {}, r"must be in \[0, 1\]"),
        ([{"label": 3}], {}, "no column of label"),
        ([Image.new("RGB", (8, 8))], {}, "cannot have 2 channels"),
        (torch.utils.data.DataLoader([0]), {}, "not a DataLoader"),
    ],
)
def test_bad_input(tiny, small, dataset, given, message):
    given = {"objective": "channel:first:0", **given}
    with pytest.raises(FeatvizError, match=message) as caught:
        fv.examples(tiny, small if dataset is None else dataset, **given)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_asked_of_the_result(tiny, small):
    found = fv.examples(tiny, small, MIXED[:2], k=2)
    assert found.unit("channel:first:0") == found.unit(MIXED[1]) == found.unit(-1) == 1
    assert found.unit(np.int64(1)) == found.unit(torch.tensor(1)) == 1
    for ask, message in [
        (lambda: found.images(2), "no unit 2"),
        (lambda: found.images("channel:first:3"), "no examples of channel:first:3"),
        (lambda: found.images(0, "left"), "top or bottom"),
        (lambda: found.correlation("first"), "ask with correlate=True"),
    ]:
        with pytest.raises(FeatvizError, match=message):
            ask()


def test_an_empty_folder(tmp_path):
    with pytest.raises(FeatvizError, match="no images in"):
        fv.examples(in_colour(), tmp_path, "channel:first:0")


def test_a_source_can_be_gone_through_again(small):
    source = ImageDataset(small)
    assert [i.index for i in source] == [i.index for i in source] == list(range(40))
    assert source.repeatable
    assert not ImageDataset(iter(small)).repeatable


def stack(*layers: tuple[int, int, int], channels: int = 2) -> nn.Sequential:
    """Convolutions (kernel, stride, dilation) with positive weights and 'same' padding."""
    made = []
    for index, (kernel, stride, dilation) in enumerate(layers):
        pad = dilation * (kernel - 1) // 2
        into = channels if index else 3
        made.append(nn.Conv2d(into, channels, kernel, stride, pad, dilation))
        nn.init.uniform_(made[-1].weight, 0.1, 1)
    return nn.Sequential(*made)


@pytest.mark.parametrize(
    "layers",
    [
        [(3, 1, 1)],
        [(3, 1, 1), (3, 1, 1), (5, 1, 1)],
        [(3, 2, 1), (3, 1, 1), (3, 2, 1), (5, 1, 1)],
        [(7, 2, 1), (3, 1, 2), (3, 2, 1)],
        [(2, 2, 1), (4, 2, 1)],
        [(1, 1, 1)],
    ],
    ids=str,
)
def test_the_whole_field_is_that_of_the_closed_formula(layers):
    model = fv.Model(nets.seeded(lambda: stack(*layers)), size=(96, 112))
    size, jump = 1, 1
    for kernel, stride, dilation in layers:
        size += (kernel - 1) * dilation * jump
        jump *= stride
    for depth in (f"{len(layers) - 1}", "output"):
        assert receptive.receptive_field(model, depth, fraction=1.0) == (size, size)
    effective = receptive.receptive_field(model, "output", 0.95)
    assert all(1 <= side <= size for side in effective)
    if len(layers) == 3 and layers[0][0] == 3:
        assert max(effective) < size  # Luo et al.: it takes up only a part
    # The box of a position is where the position's own gradient is.
    field = receptive.measure(model, "output", 1.0)
    for place in [(5, 9), (0, 0), tuple(g - 1 for g in field.grid)]:
        image = torch.rand(1, 3, 96, 112).requires_grad_()
        model(image)[(0, 0, *place)].backward()
        hit = image.grad.abs().sum((0, 1)).nonzero()
        first, last = hit.amin(0), hit.amax(0) + 1
        box = field.boxes(torch.tensor(place))
        assert (box[:2] - first).abs().max() <= 0
        assert (box[2:] - last).abs().max() <= 0


def test_fields_hold_what_they_say_and_repeat(lite0):
    narrow, wide = (receptive.receptive_field(lite0, "_blocks.2", f) for f in (0.5, 0.95))
    assert all(a < b for a, b in zip(narrow, wide, strict=True))
    assert receptive.receptive_field(lite0, "_blocks.2", 1.0) == (19, 19)
    assert receptive.receptive_field(lite0, "_blocks.2") == wide
    energy = torch.rand(9, 9, generator=torch.Generator().manual_seed(0)).double() ** 4
    (y0, x0), (y1, x1) = receptive._peel(energy, 0.8)
    assert energy[y0:y1, x0:x1].sum() >= 0.8 * energy.sum()


def test_fields_of_what_has_none(tiny):
    with pytest.raises(LayerError, match="no positions on the image"):
        receptive.receptive_field(tiny, "head")
    with pytest.raises(FeatvizError, match="fraction must be"):
        receptive.receptive_field(tiny, "first", 1.5)
    dead = fv.Model(nets.seeded(nets.Dead), size=8)
    dead.net.conv.bias.data[:] = -100
    assert receptive.receptive_field(dead, "act") == (8, 8)


def factory() -> fv.Model:
    return in_colour()


class Stopped(nets.Small):
    """Is interrupted on its way."""

    def __init__(self):
        super().__init__(3)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 3:  # the first lists the layers
            raise KeyboardInterrupt
        return super().forward(x)


def interrupted() -> fv.Model:
    return fv.Model(nets.seeded(Stopped), mean=0.5, std=0.25, size=8, channels=3)


def command(folder, *more, model="factory"):
    return ["examples", f"tests.test_examples:{model}", str(folder), *map(str, more)]


def test_the_command(folder, tmp_path, capsys):
    out = tmp_path / "out.png"
    words = ["--objective", "channel:second:1", "--objective", "-class:1", "-k", 3, "-o", out]
    assert main(command(folder, *words, "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["objective"] == ["channel:second:1", "-class:1"]
    assert document["count"] == 6
    assert len(document["top"][0]) == len(document["bottom"][1]) == 3
    best = document["top"][0][0]
    found = fv.examples(factory(), folder, "channel:second:1", k=3)
    assert best["index"] == int(found.top.indices[0, 0])
    assert best["value"] == pytest.approx(float(found.top.values[0, 0]))
    assert best["image"] == found.sources[best["index"]]
    assert document["top"][1][0]["position"] is None
    assert document["spread"]["q0.5"][0] == pytest.approx(float(found.statistics.quantile(0.5)))
    assert document["files"] == [str(out)]
    carried = pictures.read_settings(out)
    assert carried["verb"] == "examples"
    assert carried["top"] == document["top"]
    with Image.open(out) as page:
        assert page.width == 3 * (8 + 8) + 8
    assert main(command(folder, *words)) == 0
    said = capsys.readouterr().out
    assert best["image"] in said
    assert "6 images" in said


def test_control_c_saves_what_there_is(folder, tmp_path, capsys):
    out = tmp_path / "out.png"
    words = ["--objective", "channel:second:1", "-k", 2, "-o", out, "--batch-size", 2, "--json"]
    assert main(command(folder, *words, model="interrupted")) == 130
    document = json.loads(capsys.readouterr().out)
    assert document["interrupted"]
    assert document["count"] == 2
    assert out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-k", "0"], "k must be positive"),
        (["--objective", "channel:nowhere:1"], "no layer 'nowhere'"),
        (["--objective", "diversity:first"], "depends on the whole batch"),
        (["--objective", "channel:first"], "channel"),
        (["-o", "out.txt"], "its extension names no image format"),
        (["-o", "missing/out.png"], "there is no folder"),
        (["--batch-size", "0"], "batch_size must be positive"),
    ],
)
def test_bad_input_on_the_command_line(folder, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    start = command(folder, "-o", "out.png")
    if "--objective" not in words:
        start += ["--objective", "channel:first:0"]
    assert main([*start, *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_on_the_command_line(tmp_path, capsys):
    words = ["--objective", "channel:first:0", "-o", str(tmp_path / "out.png")]
    for place, message in ((tmp_path / "none", "no folder"), (tmp_path, "no images in")):
        assert main(command(place, *words)) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


def test_the_sheet(tmp_path, folder):
    model = in_colour()
    found = fv.examples(model, folder, [fv.channel("first", i) for i in range(4)], k=3)
    (written,) = found.save(tmp_path / "some.png", units=["channel:first:2"])
    assert pictures.read_settings(written)["objective"] == ["channel:first:2"]
    assert found._repr_png_().startswith(b"\x89PNG")
    many = fv.examples(model, folder, [fv.channel("first", i % 4) for i in range(40)], k=1)
    with pytest.raises(FeatvizError, match="at most 32 objectives"):
        many.save(tmp_path / "many.png")


@pytest.mark.parametrize("goal", [None, "class:2", "class:2 - class:0"])
def test_ranked_by_relevance(tiny, small, goal):
    goals = [fv.channel("second", i) for i in range(4)] + [fv.objective("neuron:first:1:2:3")]
    found = fv.examples(tiny, small[:8], goals, k=3, by="relevance", relevant_for=goal)
    # What flows through each unit, one image and one unit at a time.
    want = [
        fv.attribute(tiny, small[:8], goal, method="lrp", through=unit).settings[
            "through_relevance"
        ]
        for unit in goals
    ]
    want = np.array(want)
    order = np.argsort(-want, axis=1, kind="stable")[:, :3]
    np.testing.assert_allclose(
        found.top.values.numpy(), np.take_along_axis(want, order, 1), rtol=1e-4, atol=1e-6
    )
    distinct = np.ptp(want, axis=1) > 1e-4
    assert distinct.sum() >= 3
    assert (found.top.indices.numpy() == order)[distinct].all()
    assert found.record["relevant_for"] == (goal or "predicted class")
    assert found.record["rule"] == "epsilon_plus"
    assert found.top.positions[4].tolist() == [[2, 3]] * 3


def test_positions_are_those_of_the_relevance():
    """Two places excite the unit alike, and the class reads the second one alone."""

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1, bias=False)
            self.head = nn.Linear(16, 2, bias=False)
            nn.init.ones_(self.conv.weight)
            nn.init.zeros_(self.head.weight)
            with torch.no_grad():
                self.head.weight[1, 10] = 1

        def forward(self, x):
            return self.head(self.conv(x).flatten(1))

    images = torch.zeros(2, 1, 4, 4)
    images[0, 0, 0, 0], images[0, 0, 2, 2] = 1, 0.25  # more active
    images[1, 0, 2, 2] = 0.5  # more relevant
    model = fv.Model(Reads(), size=(4, 4), channels=1)
    active = fv.examples(model, images, "channel:conv:0", k=1)
    assert (active.top.indices.item(), active.top.positions.tolist()) == (0, [[[0, 0]]])
    used = fv.examples(
        model, images, "channel:conv:0", k=1, by="relevance", relevant_for="channel:head:1"
    )
    assert (used.top.indices.item(), used.top.positions.tolist()) == (1, [[[2, 2]]])
    assert used.top.values.item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("unit", "given", "message"),
    [
        ("class:1", {}, "takes channels and neurons of one layer"),
        ("channel:first:0 + channel:first:1", {}, "takes single units, not"),
        ("channel:first:9", {}, "no channel 9"),
        ("channel:head:0", {"relevant_for": "channel:second:1"}, "does not depend on that layer"),
        ("channel:first:0", {"rule": "flt"}, "no rule 'flt'"),
        ("channel:first:0", {"precision": "bf16"}, "precision fp32"),
        ("channel:first:0", {"by": "relevence"}, "no by 'relevence'; did you mean 'relevance'"),
        ("channel:first:0", {"by": "activation", "relevant_for": "class:1"}, "is for by="),
    ],
)
def test_bad_relevance_is_one_line(tiny, small, unit, given, message):
    with pytest.raises(FeatvizError, match=message) as caught:
        fv.examples(tiny, small[:2], unit, **{"by": "relevance", **given})
    assert "\n" not in str(caught.value)
