# %% [markdown]
# # Dreaming
#
# DeepDream amplifies in a photograph what a layer sees in it. It is the loop of `fv.render`, started
# at an image and repeated at growing sizes (octaves).

# %%
import featviz as fv

model = fv.load("efficientnet_lite0")
fv.dream(model, "cat.jpg", "layer:_blocks.10", lr=0.012, steps=15)

# %% [markdown]
# An early layer finds lines and textures, one octave only small patterns:

# %%
fv.dream(model, "cat.jpg", "layer:_blocks.3", octaves=2)

# %% [markdown]
# Any objective will do. The channel of ropes of the first tutorial, with the colours of the photograph:

# %%
fv.dream(model, "cat.jpg", fv.channel("_blocks.4", 10), colors="preserve")

# %% [markdown]
# Part of the picture only: a mask is 1 where it dreams and 0 where the pixels stay as they are.

# %%
from PIL import Image, ImageDraw

with Image.open("cat.jpg") as cat:
    mask = Image.new("L", cat.size, 0)
ImageDraw.Draw(mask).rectangle((0, 0, mask.width // 2, mask.height), fill=255)
half = fv.dream(model, "cat.jpg", "layer:_blocks.10", mask=mask, lr=0.012, steps=15)
half

# %% [markdown]
# A film enlarges each frame a little and dreams on; `frames=240` makes ten seconds. Here are four:

# %%
import torch

frames = list(fv.dream_video(model, "cat.jpg", frames=4, zoom=1.1))
strip = torch.cat(frames, 2)
Image.fromarray((strip.movedim(0, -1) * 255).byte().numpy())

# %% [markdown]
# `fv.video.write("dream.mp4", frames)` writes them. Guides, tiles for images of any size, and what
# happens in a step: [DeepDream](../dream.md).
