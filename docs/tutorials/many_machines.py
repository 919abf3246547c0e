# %% [markdown]
# # An atlas on many machines
#
# A whole network is thousands of images, hours on one machine. The images do not depend on each other,
# so that any number of processes can share the work, and what is stored is never made again. Here, the
# machines are processes on one computer, the units are few, and one machine is switched off on purpose.
#
# All that machines have to share is the folder: a network drive, or a bucket (`-o s3://bucket/atlas`,
# any URL of fsspec). Each is given its own units:
#
# ```sh
# featviz atlas efficientnet_lite0 -o atlas --layers _blocks.4 --units 0:4   # on the first machine
# featviz atlas efficientnet_lite0 -o atlas --layers _blocks.4 --units 4:8   # on the second
# ```
#
# The same, with small images of few steps:

# %%
import subprocess
import sys
import time
from pathlib import Path

SETTINGS = {"signs": "+-", "size": 96, "steps": 32}


def start(units):
    line = [sys.executable, "-m", "featviz", "atlas", "efficientnet_lite0", "-o", "atlas"]
    line += ["--layers", "_blocks.4", "--units", units, "--batch", "2"]
    line += [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def shards():
    return sorted(Path("atlas", "pictures").glob("*/*.parquet"))


first = start("0:4")
while not shards() and first.poll() is None:
    time.sleep(0.01)
first.kill()
first.wait()
print(f"shards when the first machine was switched off: {len(shards())} of 4")

# %% [markdown]
# A shard is a Parquet file of a batch, here of two images. It gets its name only when it is complete, so
# that whoever is killed leaves nothing half-written; what was in progress is lost. The second machine does
# not notice, and does its own part:

# %%
status = start("4:8").wait()
print(f"the second machine ended with status {status}; shards: {len(shards())} of 8")

# %% [markdown]
# ## Going on
#
# To go on, give the same command again, here or elsewhere. It makes a list of the images, reads which of
# them are stored, and renders the rest. In Python it is `fv.atlas`, and `workers=2` shares the work among
# two processes of this machine. For good measure, we kill one of the two as soon as it has stored
# something. Its images are rendered again by another:

# %%
import multiprocessing
import warnings

import featviz as fv


def kill_one(rows):
    if not killed:
        victim = multiprocessing.active_children()[0]
        victim.kill()
        killed.append(victim.name)


killed = []
before = len(fv.Atlas("atlas"))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    atlas = fv.atlas(
        "efficientnet_lite0",
        ["_blocks.4"],
        out="atlas",
        units=range(8),
        batch_size=2,
        workers=2,
        on_stored=[kill_one],
        **SETTINGS,
    )
print(
    f"{before} images were stored, now {len(atlas)} of 16; told: {[str(w.message) for w in told]}"
)
atlas

# %% [markdown]
# None is missing, none is there twice, and each is the same to the byte as if nobody had been killed: an
# image is a pure function of the network, the unit, the settings and the seed, not of the process or the
# batch in which it is made. `python benchmarks/atlas_kill.py` kills many times more, and compares.
#
# Other settings in the same folder would make images that cannot be compared. They are refused, with the
# difference:

# %%
try:
    fv.atlas("efficientnet_lite0", ["_blocks.4"], out="atlas", size=96, steps=64, units=[0])
except fv.FeatvizError as error:
    print(error)

# %% [markdown]
# ## Reading it
#
# Everything is in Parquet files, one row an image, for pyarrow, pandas, DuckDB, polars or `datasets`. The
# channels with the highest scores, and what is left of them when the image is shifted, turned and scaled:

# %%
import pyarrow.parquet as pq

table = pq.read_table("atlas/pictures")
columns = ["unit", "sign", "score", "score_held_out", "seconds"]
raised = [row for row in table.select(columns).to_pylist() if row["sign"] == "+"]
for row in sorted(raised, key=lambda row: -row["score"])[:4]:
    print(f"{row['unit']:3} {row['score']:7.2f}, held out {row['score_held_out']:.2f}")

# %%
import io

from PIL import Image

best = max(table.to_pylist(), key=lambda row: row["score"])
Image.open(io.BytesIO(best["image"]["bytes"]))

# %% [markdown]
# The settings, the versions and a hash of the network are in the row as well:

# %%
import json

print({name: json.loads(best["settings"])[name] for name in ("steps", "size", "transforms")})
print(best["objective"], best["model_hash"][:12], json.loads(best["versions"]))

# %% [markdown]
# ## Looking at it
#
# `featviz view atlas` writes pages into the folder, and opens them. They need no server, so that a bucket
# can serve them as they are:

# %%
from featviz import atlases

page = Path(atlases.view("atlas"))
files = [path for path in page.parent.joinpath("site").rglob("*") if path.is_file()]
print(f"{page.name}, and {len(files)} files, {sum(p.stat().st_size for p in files) // 1024} kB")

# %% [markdown]
# `webbrowser.open(page.absolute().as_uri())` opens it; a layer and one of its units look like this:
#
# ![A layer and one of its units in the viewer](../images/atlas.png)
#
# ## A cluster
#
# Who has a Ray cluster need not share out the units: `featviz atlas … --ray auto` (`ray="auto"`) places an
# actor on each GPU, or each core, and replaces those that die. What is checked, what a damaged file does,
# and what an atlas costs: [Channel atlases](../atlas.md).
