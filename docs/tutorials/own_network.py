# %% [markdown]
# # Your own network in ten lines
#
# Any `nn.Module` will do. To know what we should find, we train a small network ourselves, on patterns
# of our own: rings, stripes that rise and stripes that fall, at random places, contrasts and widths.

# %%
import torch
from torch import nn

import featviz as fv


def examples(count, generator):
    def draw(low, high):
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    cx, cy, phase, f = draw(-0.5, 0.5), draw(-0.5, 0.5), draw(0, 6.3), draw(10, 20)
    rings = torch.sin(f * ((x - cx) ** 2 + (y - cy) ** 2).sqrt() + phase)
    rising = torch.sin(0.7 * f * (x + y) + phase)
    falling = torch.sin(0.7 * f * (x - y) + phase)
    labels = torch.randint(3, (count,), generator=generator)
    patterns = torch.stack([rings, rising, falling], 1)[torch.arange(count), labels]
    noise = torch.randn(patterns.shape, generator=generator)
    images = draw(0.3, 0.7) + draw(0.1, 0.4) * patterns + 0.1 * noise
    return images.clamp(0, 1)[:, None], labels


def block(channels, out):
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.BatchNorm2d(out), nn.ReLU()
    )


torch.manual_seed(0)
net = nn.Sequential(
    block(1, 16), block(16, 32), block(32, 32),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3),
)  # fmt: skip
generator = torch.Generator().manual_seed(0)
optimizer = torch.optim.Adam(net.parameters(), 3e-3)
for _ in range(150):
    images, labels = examples(64, generator)
    loss = nn.functional.cross_entropy(net(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss {loss:.2f}")

# %% [markdown]
# ## The ten lines
#
# `fv.Model` says what the network takes: the size and channels of its images, the mean and standard
# deviation that they are normalized with (ours are not), and the names of its classes.

# %%
model = fv.Model(
    net,
    mean=0.0,
    std=1.0,
    size=64,
    channels=1,
    classes=["rings", "rising", "falling"],
)
model

# %%
classes = ['margin:"rings"', 'margin:"rising"', 'margin:"falling"']
fv.render(model, classes)

# %% [markdown]
# Stripes in the right directions. But rings? The network has found out that it does not need them: rings
# have horizontal and vertical pieces, stripes have none, and that is enough to tell them apart. No
# accuracy would have told us.
#
# The margin is the logit of a class minus the largest of the others. With three classes a logit alone
# says little: it may be large for what raises all three.
#
# The names of layers are those of PyTorch, so that channels need no more than that. Some channels of the
# second block respond to patterns of single pixels, which look gray from afar:

# %%
fv.render(model, [fv.channel("1", c) for c in range(6)])

# %% [markdown]
# Where an image comes out gray or noisy as a whole, look at the range first: images are floats in [0, 1]
# here, and `mean` and `std` are what the network's own preprocessing does to such images.
# `fv.Model.of(net)` reads them from networks of timm, torchvision and Hugging Face. Other inputs, several
# outputs, transformers: [Networks](../networks.md).
