"""A vision transformer of the layout of DINOv2, with a decoder of its patches into a map.

Pre-norm blocks with layer scale, a class token, and learned positions that are interpolated to the
image's grid of patches. [Dosovitskiy2021]_ [Oquab2024]_ Layers are named as in timm.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from featviz.errors import FeatvizError
from featviz.types import Tensor

#: Pixels on a side of a patch, and patches on a side of the positions' grid, as in DINOv2.
PATCH, GRID = 14, 37


class LayerScale(nn.Module):
    """A learned factor for each feature of a residual branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Attention(nn.Module):
    """Self-attention of tokens (B, N, width); ``proj`` gets the heads one after the other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers around a GELU, applied to each token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Attention and an MLP, each on a residual branch with layer scale."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, 1e-6), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, 1e-6), Mlp(width)
        self.ls1, self.ls2 = LayerScale(width), LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Decoder(nn.Module):
    """Patches (B, width, h, w) to values (B, 1, 8h, 8w) by three transposed convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (width, 256, 128, 64)
        for i in (1, 2, 3):
            self.add_module(f"upconv{i}", nn.ConvTranspose2d(sizes[i - 1], sizes[i], 4, 2, 1))
            self.add_module(f"bn{i}", nn.BatchNorm2d(sizes[i]))
            self.add_module(f"relu{i}", nn.ReLU())
        self.final_conv = nn.Conv2d(sizes[-1], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x


class VisionTransformer(nn.Module):
    """Normalized images (B, 3, H, W) to a map (B, 1, H, W) in [0, 1].

    H and W are multiples of 14. Tokens are the class token and the patches, row by row.

    Raises
    ------
    FeatvizError
        If the image is not a whole number of patches.
    """

    def __init__(self, width: int = 384, depth: int = 12, heads: int = 6) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, PATCH, PATCH)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID**2, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, 1e-6)
        self.decoder = Decoder(width)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (side // PATCH for side in x.shape[-2:])
        values = self.decoder(self.tokens(x)[:, 1:].mT.unflatten(2, (rows, columns)))
        return F.interpolate(values, x.shape[-2:], mode="bilinear").sigmoid()

    def tokens(self, x: Tensor) -> Tensor:
        """Return the tokens (B, 1 + patches, width) of images (B, 3, H, W), without the decoder."""
        if any(side % PATCH for side in x.shape[-2:]):
            raise FeatvizError(
                f"images of {x.shape[-2]} x {x.shape[-1]} are not whole patches: sides are "
                f"multiples of {PATCH}"
            )
        patches = self.patch_embed(x)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches.flatten(2).mT], 1)
        return self.norm(self.blocks(tokens + self.positions(*patches.shape[-2:])))

    def positions(self, rows: int, columns: int) -> Tensor:
        """Return the positions (1, 1 + rows * columns, width) of a grid of patches."""
        first, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:].mT.unflatten(2, (GRID, GRID))
        if (rows, columns) != (GRID, GRID):
            grid = F.interpolate(grid, (rows, columns), mode="bicubic")
        return torch.cat([first, grid.flatten(2).mT], 1)
