"""The networks that are timed, each with an early, a middle and a late layer.

    python benchmarks/networks.py        # lists the networks, their layers and shapes

EfficientNet-Lite0 and Lite2 carry their ImageNet weights. ResNet-50 [He et al. 2016] and ViT-S/16
[Dosovitskiy et al. 2021; Touvron et al. 2021] are written here, so that what is timed does not
depend on what is installed; their weights are random, from a fixed seed.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import featviz as fv

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PLACES = ("early", "middle", "late")


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the 3x3 has the stride."""

    def __init__(self, inner: int, width: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outer, 1, bias=False), nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if inner != outer:
            conv = nn.Conv2d(inner, outer, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


class ResNet50(nn.Module):
    """3, 4, 6 and 3 bottlenecks of 64 to 512 channels, in one list of 16 ``blocks``."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)
        self.stem = nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.ModuleList()
        inner = 64
        for stage, count in enumerate((3, 4, 6, 3)):
            width = 64 * 2**stage
            for index in range(count):
                stride = 2 if stage and not index else 1
                self.blocks.append(Bottleneck(inner, width, 4 * width, stride))
                inner = 4 * width
        self.fc = nn.Linear(inner, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((2, 3)))


class Block(nn.Module):
    """Attention, then a perceptron, each after a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, width // self.heads)
        y = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        x = x + self.proj(y.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.norm2(x))


class ViTSmall(nn.Module):
    """ViT-S/16: width 384, 12 ``blocks``, 6 heads, patches of 16 pixels, a class token."""

    def __init__(self, classes: int = 1000, size: int = 224, width: int = 384) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, (size // 16) ** 2 + 1, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, 6) for _ in range(12))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def _resnet50() -> fv.Model:
    net = ResNet50()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics become those of the one batch below
    with torch.no_grad():
        net(torch.randn(4, 3, 96, 96))  # so that no activation grows from block to block
    return fv.Model(net.eval(), **IMAGENET)


@dataclasses.dataclass(frozen=True)
class Network:
    """How to build a network, and its layers at about 1/4, 2/3 and the end of its depth."""

    build: Callable[[], fv.Model]
    early: str
    middle: str
    late: str
    fixed: bool = False  # takes images of its own size only

    def layer(self, place: str) -> str:
        """Return the layer at ``early``, ``middle`` or ``late``; any other name is one."""
        return getattr(self, place) if place in PLACES else place


NETWORKS = {
    "lite0": Network(
        lambda: fv.load("efficientnet_lite0"), "_blocks.3", "_blocks.10", "_blocks.15"
    ),
    "lite2": Network(
        lambda: fv.load("efficientnet_lite2"), "_blocks.4", "_blocks.13", "_blocks.20"
    ),
    "resnet50": Network(_resnet50, "blocks.3", "blocks.10", "blocks.15"),
    "vit_s16": Network(
        lambda: fv.Model(ViTSmall().eval(), **IMAGENET),
        "blocks.2",
        "blocks.7",
        "blocks.11",
        fixed=True,
    ),
}


def load(name: str, device: str = "cpu") -> fv.Model:
    """Return the network called ``name``, a key of ``NETWORKS``, in eval mode on ``device``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = NETWORKS[name].build()
    return model.on(torch.device(device))


def main() -> None:
    for name, network in NETWORKS.items():
        model = load(name)
        count = sum(p.numel() for p in model.net.parameters()) / 1e6
        print(f"{name}: {count:.1f} million weights, {model.size[0]} px")
        for place in PLACES:
            info = model.layer(network.layer(place))
            print(f"  {place:8}{info.name:12} {'x'.join(map(str, info.shape))}")


if __name__ == "__main__":
    main()
