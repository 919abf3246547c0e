"""Activation grids and atlases on networks whose directions are known, and killed half-way."""

import functools
import json
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import featviz as fv
from featviz.recipes import plane as planes
from featviz.recipes.direction_pictures import picture_directions

FAST = {"steps": 8, "transforms": "none", "quality": "fast", "size": 8, "param": "pixel"}


class Colours(nn.Module):
    """Its layer is the image around gray, its classes are the colours."""

    def __init__(self):
        super().__init__()
        self.look = nn.Conv2d(3, 3, 1)
        self.look.weight = nn.Parameter(torch.eye(3)[..., None, None])
        self.look.bias = nn.Parameter(torch.full((3,), -0.5))

    def forward(self, x):
        return self.look(x).flatten(2).mean(2)


def network():
    return fv.Model(Colours(), size=8, classes=("red", "green", "</script>"))


@pytest.fixture
def colours():
    return network()


@pytest.fixture
def folder(tmp_path):
    """Twelve images of one colour each, in three shades of red, green, and blue, and a broken one."""
    place = tmp_path / "photos"
    place.mkdir()
    for channel, name in enumerate(("a-red", "b-green", "c-blue")):
        for shade in range(4):
            pixels = torch.full((3, 8, 8), 40, dtype=torch.uint8)
            pixels[channel] = 200 + 10 * shade
            Image.fromarray(pixels.movedim(0, 2).numpy()).save(place / f"{name}{shade}.png")
    return place


def colour_of(picture):
    return int(picture.mean((-2, -1)).argmax())


def test_a_grid_shows_each_part_in_its_colour(colours, tmp_path):
    image = torch.full((1, 3, 8, 8), 0.1)
    image[:, 0, :, :4] = 0.9  # red on the left
    image[:, 2, :, 4:] = 0.9  # blue on the right
    made = fv.recipes.activation_grid(colours, image, "look", cells=2, **FAST)
    assert made.pictures.shape == (2, 2, 3, 8, 8)
    torch.testing.assert_close(made.vectors[0, 0], torch.tensor([0.4, -0.4, -0.4]))
    found = [[colour_of(made.pictures[row, column]) for column in (0, 1)] for row in (0, 1)]
    assert found == [[0, 2], [0, 2]]
    torch.testing.assert_close(made.pictures[0], made.pictures[1])  # alike, from the same noise
    made.save(tmp_path / "grid.png")


def test_a_grid_has_at_most_a_cell_for_each_position(lite0, photos):
    options = FAST | {"size": 32, "steps": 2}
    made = fv.recipes.activation_grid(lite0, photos[:1], "_blocks.15", cells=99, **options)
    assert made.vectors.shape == (7, 7, 320)


def test_gathered_activations_are_those_of_their_positions(lite0, photos):
    found = fv.recipes.gather(lite0, list(photos), "_blocks.8", per_image=3, batch_size=3)
    assert found.vectors.shape == (12, 112)
    assert found.images.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    units = lite0.activations(photos, "_blocks.8")["_blocks.8"]
    for vector, index, (y, x) in zip(
        found.vectors, found.images, found.positions.tolist(), strict=True
    ):
        torch.testing.assert_close(vector, units[index, :, y, x], rtol=1e-4, atol=1e-4)
    assert found.classes[::3].tolist() == lite0(photos).argmax(1).tolist()
    alone = fv.recipes.gather(lite0, list(photos), "_blocks.8", per_image=3, batch_size=1)
    assert torch.equal(alone.positions, found.positions)  # whatever the batches
    assert len({tuple(p) for p in found.positions[:3].tolist()}) == 3  # without repetition


def test_images_that_cannot_be_read_are_skipped(colours, folder):
    (folder / "a-broken.png").write_bytes(b"no image")
    with pytest.warns(fv.FeatvizWarning, match=r"1 of 13 images cannot be read: a-broken\.png"):
        found = fv.recipes.gather(colours, folder, "look")
    assert "a-broken.png" not in found.names
    assert len(found) == 12


def test_the_plane_separates_planted_clusters():
    random = torch.Generator().manual_seed(0)
    centres = torch.eye(20)[:3] * 5
    labels = torch.arange(300) % 3
    vectors = centres[labels] + 0.2 * torch.randn(300, 20, generator=random)
    places, used = fv.recipes.planar(vectors, "pca")
    assert used == "pca"
    assert places.min() == 0
    assert places.max() == 1
    means = torch.stack([places[labels == k].mean(0) for k in range(3)])
    spread = max(float((places[labels == k] - means[k]).norm(dim=1).max()) for k in range(3))
    assert torch.pdist(means).min() > 2 * spread


def test_umap_is_used_where_it_is_installed(monkeypatch):
    seen = {}

    class Fake:
        def __init__(self, **options):
            seen.update(options)

        def fit_transform(self, vectors):
            return vectors[:, :2]

    vectors = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(planes.importlib.util, "find_spec", lambda name: None)
    assert fv.recipes.planar(vectors)[1] == "pca"
    with pytest.raises(fv.FeatvizError, match=r"UMAP is not installed: .*umap"):
        fv.recipes.planar(vectors, "umap")
    monkeypatch.setattr(planes.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Fake))
    places, used = fv.recipes.planar(vectors, seed=3)
    assert used == "umap"
    assert seen["random_state"] == 3
    assert (places[:, 0].argsort() == vectors[:, 0].argsort()).float().mean() > 0.9


def test_cells_are_where_their_places_are():
    places = torch.tensor([[0.0, 1.0], [0.05, 0.99], [1.0, 0.0], [0.5, 0.5]])
    cells = planes.cells_of(places, 4, 1)
    assert {(c.row, c.column): c.members.tolist() for c in cells} == {
        (0, 0): [0, 1],  # the top left: the second axis goes up
        (1, 2): [3],
        (3, 3): [2],
    }
    assert [c.members.tolist() for c in planes.cells_of(places, 4, 2)] == [[0, 1]]


def test_what_all_activations_share_is_whitened_away():
    random = torch.Generator().manual_seed(0)
    vectors = torch.randn(2000, 3, generator=random)
    vectors[:, 0] += 30  # shared by all
    special = torch.tensor([30.0, 3, 0])
    pointed = special @ planes.inverse_moments(vectors)
    assert pointed[1] > 5 * pointed[0].abs()


def test_an_atlas_finds_the_regions_of_classes(colours, folder, tmp_path):
    out = tmp_path / "atlas"
    made = fv.recipes.activation_atlas(
        colours, folder, "look", out, grid=3, method="pca", whiten=False, **FAST
    )
    assert sum(len(cell.members) for cell in made.cells) == 12
    for index, name in enumerate(colours.classes):
        regions = made.regions(name)
        for cell in regions:
            assert colour_of(made.pictures[made.cells.index(cell)]) == index
    with pytest.raises(fv.FeatvizError, match="no cell of the atlas belongs to 'violet'"):
        made.regions("violet")
    record = json.loads((out / "atlas.json").read_text())
    assert record["activations"] == 12
    assert {name for cell in record["cells"] for name in cell["classes"]} == set(colours.classes)
    assert all(0 < len(cell["images"]) <= 12 for cell in record["cells"])
    page = (out / "index.html").read_text()
    assert page.count("</script>") == 2  # the class of that name does not end the data
    with Image.open(out / "atlas.png") as sheet:
        assert sheet.size == made.sheet().size


def test_stored_batches_are_not_rendered_again(colours, tmp_path):
    vectors = torch.eye(3)[[0, 1, 2, 0, 1]]
    plan = fv.Settings(**FAST).resolve(colours)
    steps = []
    options = {"folder": tmp_path, "batch_size": 2, "callbacks": [lambda step: steps.append(1)]}
    first = picture_directions(colours, "look", vectors, plan, **options)
    assert len(steps) == 3 * 8
    (tmp_path / "00001.safetensors").unlink()
    again = picture_directions(colours, "look", vectors, plan, **options)
    assert len(steps) == 4 * 8
    assert torch.equal(first, again)
    alone = picture_directions(colours, "look", vectors, plan)  # in one batch, not stored
    torch.testing.assert_close(alone, first, atol=1 / 255, rtol=0)


@pytest.mark.parametrize("change", ["seed", "steps", "vectors", "weights"])
def test_a_folder_of_another_atlas_is_refused(colours, tmp_path, change):
    vectors, plan = torch.eye(3), fv.Settings(**FAST).resolve(colours)
    picture_directions(colours, "look", vectors, plan, folder=tmp_path)
    seed = 1 if change == "seed" else 0
    if change == "steps":
        plan = fv.Settings(**FAST | {"steps": 9}).resolve(colours)
    if change == "vectors":
        vectors = 1 - vectors
    if change == "weights":
        with torch.no_grad():
            colours.net.look.bias += 0.1
    with pytest.raises(fv.FeatvizError, match="name another folder"):
        picture_directions(colours, "look", vectors, plan, folder=tmp_path, seed=seed)


def test_other_images_are_refused(colours, folder, tmp_path):
    options = {"grid": 2, "method": "pca", **FAST}
    fv.recipes.activation_atlas(colours, folder, "look", tmp_path / "out", **options)
    (folder / "a-red0.png").unlink()
    with pytest.raises(fv.FeatvizError, match="gathered from other images"):
        fv.recipes.activation_atlas(colours, folder, "look", tmp_path / "out", **options)


def test_other_images_of_the_same_names_are_refused(colours, folder, tmp_path):
    options = {"grid": 2, "method": "pca", **FAST}
    make = functools.partial(fv.recipes.activation_atlas, colours, layer="look", **options)
    some = [torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(12)]
    make(some, out=tmp_path / "tensors")
    make(some, out=tmp_path / "tensors")
    with pytest.raises(fv.FeatvizError, match="gathered from other images"):
        make([1 - image for image in some], out=tmp_path / "tensors")
    make(folder, out=tmp_path / "files")
    first = next(iter(sorted(folder.iterdir())))
    Image.new("RGB", (8, 8), "white").save(first)
    with pytest.raises(fv.FeatvizError, match="gathered from other images"):
        make(folder, out=tmp_path / "files")


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
import featviz as fv
from tests.test_activation_atlas import FAST, network

def kill(step):
    if step.index == 2 and len(os.listdir({out!r} + "/cells")) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

fv.recipes.activation_atlas(
    network(), {photos!r}, "look", {out!r}, grid=4, method="pca", batch_size=1,
    callbacks=[kill], **FAST
)
"""


def test_an_atlas_goes_on_where_it_was_killed(colours, folder, tmp_path):
    """SIGKILL in the third batch; the second run renders what is missing, to the same bytes."""
    root, out = str(Path(__file__).parent.parent), tmp_path / "killed"
    code = KILLED.format(root=root, out=str(out), photos=str(folder))
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-500:]
    assert sorted(p.name for p in (out / "cells").glob("[!.]*")) == [
        "00000.safetensors",
        "00001.safetensors",
    ]
    assert not (out / "atlas.json").exists()
    steps = []
    options = {"grid": 4, "method": "pca", "batch_size": 1, **FAST}
    made = fv.recipes.activation_atlas(
        colours, folder, "look", out, callbacks=[lambda step: steps.append(1)], **options
    )
    assert len(made.cells) >= 3
    assert len(steps) == 8 * (len(made.cells) - 2)
    whole = fv.recipes.activation_atlas(colours, folder, "look", tmp_path / "whole", **options)
    assert torch.equal(made.pictures, whole.pictures)
    for name in ("atlas.png", "atlas.json", "index.html"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
