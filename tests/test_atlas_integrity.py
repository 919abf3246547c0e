"""An atlas after interruptions and damage: nothing lost, nothing wrong without a word."""

from __future__ import annotations

import random

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import featviz as fv
from featviz.atlases.store import Store

STEPS = {"steps": 2, "transforms": "none"}


@pytest.fixture
def rgb() -> fv.Model:
    """A network of RGB images of 8 px: one convolution of four channels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    return fv.Model(net, size=8)


def test_ctrl_c_before_the_first_shard_leaves_a_folder_that_resumes(rgb, tmp_path):
    def interrupt(step):
        raise KeyboardInterrupt

    first = fv.atlas(rgb, "0", out=tmp_path, callbacks=[interrupt], **STEPS)
    assert first.interrupted
    assert len(first) == 0
    assert len(fv.atlas(rgb, "0", out=tmp_path, **STEPS)) == 8


def test_an_index_of_nothing_is_read(rgb, tmp_path):
    store = Store(tmp_path)
    store.reindex(store.records())  # as earlier versions left it
    assert len(fv.atlas(rgb, "0", out=tmp_path, **STEPS)) == 8


@pytest.fixture
def stored(rgb, tmp_path):
    fv.atlas(rgb, "0", out=tmp_path, batch_size=8, **STEPS)
    (shard,) = tmp_path.glob("pictures/*/*.parquet")
    return tmp_path, shard


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_is_found_and_rendered_again(seed, rgb, stored):
    folder, shard = stored
    content = bytearray(shard.read_bytes())
    expected = pq.read_table(shard)["image"]
    draw = random.Random(seed)
    position = len(content) - 1 - seed if seed < 4 else draw.randrange(len(content))
    content[position] ^= 1 << draw.randrange(8)
    shard.write_bytes(bytes(content))
    with pytest.warns(fv.FeatvizWarning, match="checksum differs; it was renamed"):
        again = fv.atlas(rgb, "0", out=folder, batch_size=8, **STEPS)
    assert len(again) == 8
    assert pq.read_table(shard)["image"].equals(expected)
    assert len(list(folder.glob("pictures/*/*.damaged"))) == 1


def test_a_flipped_bit_is_found_on_reading(stored):
    folder, shard = stored
    atlas = fv.Atlas(folder)
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(bytes(content))
    with pytest.raises(fv.FeatvizError, match="checksum differs"):
        atlas["0", 0]


def test_an_atlas_without_checksums_is_read(rgb, stored):
    folder, _ = stored
    for path in folder.glob("checksums/*/*"):
        path.unlink()
    assert fv.Atlas(folder)["0", 0].image.size == (8, 8)
    assert len(fv.atlas(rgb, "0", out=folder, **STEPS)) == 8


def test_a_checksum_of_a_shard_that_was_never_replaced_keeps_the_old_one(stored):
    folder, shard = stored
    store = Store(folder)
    name = shard.relative_to(folder).as_posix()
    before = shard.read_bytes()
    rows = store.pictures(name).to_pylist()
    store.add([{**row, "seconds": 9.0} for row in rows])
    shard.write_bytes(before)  # killed between the checksum and the shard
    assert len(store.pictures(name)) == 8
