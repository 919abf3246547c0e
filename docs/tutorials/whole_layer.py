# %% [markdown]
# # A whole layer
#
# One picture of one unit is an anecdote. Layers are cheap to look at as a whole: a list of objectives
# is optimized in one batch, and small images are enough for an overview.

# %%
import featviz as fv

model = fv.load("efficientnet_lite0")
early = fv.render(model, [fv.channel("_blocks.2", c) for c in range(12)], size=96, quality="fast")
early

# %% [markdown]
# The early layers respond to edges, colours and textures. Later ones respond to parts of objects:

# %%
late = fv.render(model, [fv.channel("_blocks.10", c) for c in range(12)], size=128, quality="fast")
late

# %% [markdown]
# The result is a tensor of images with one score each, so that ordinary code sorts it:

# %%
order = late.scores.argsort(descending=True)
for i in order[:3].tolist():
    print(f"{late.objectives[i]}  {late.scores[i]:.2f}")

# %% [markdown]
# A channel may respond to several things, of which a single picture shows one. `diversity` asks the
# pictures of a batch to differ in a layer. These four differ little even so, which suggests that this
# channel has one favourite: strands that fan out and curl.

# %%
several = fv.channel("_blocks.10", 5) + 2 * fv.diversity("_blocks.10")
fv.render(model, several, seed=[0, 1, 2, 3], size=128, quality="fast")

# %% [markdown]
# ## Keeping it: an atlas
#
# An atlas stores every unit of some layers, with what raises it (`+`) and what lowers it (`-`), in a
# folder of Parquet files (`pip install "featviz[atlas]"`). The call goes on where it was interrupted:

# %%
atlas = fv.atlas(model, ["_blocks.10"], units=range(4), out="atlas", size=96, quality="fast")
atlas

# %%
atlas["_blocks.10", 2]

# %% [markdown]
# `featviz view atlas` makes pages of it that open in a browser without a server. With
# `examples="photos/"`, each unit also shows the photographs of yours that it likes most and least,
# which is the best check of what a picture seems to say. A whole network, several processes, many
# machines: [Channel atlases](../atlas.md).
