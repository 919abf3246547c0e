"""Networks that featviz has not seen, one for each way in which they differ."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv
from tests import nets


class Vgg(nn.Module):
    """Convolutions, in-place ReLUs and max-pooling, then linear layers on all positions."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Linear(12 * 6 * 6, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(16, 5)
        )

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class Residual(nn.Module):
    """Functional ReLUs after batch-norm, and a shortcut with weights where the stride is 2."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if stride > 1 else None

    def forward(self, x):
        y = self.norm2(self.second(F.relu(self.norm1(self.first(x)))))
        y += x if self.shortcut is None else self.shortcut(x)
        return F.relu(y, inplace=True)


class ResNet(nn.Module):
    """Residual blocks, functional pooling, no module for its last activation but the block."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Residual(8, 8, 1), Residual(8, 12, 2))
        self.head = nn.Linear(12, 5)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.2, 0.6)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 2)
        return self.head(F.adaptive_avg_pool2d(self.blocks(x), 1).flatten(1))


class Smooth(nn.Module):
    """No ReLU and no max-pooling: SiLU, a gate, average pooling."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.gate = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.silu(self.second(F.silu(self.first(x))))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        return self.head(x.mean((2, 3)))


class ConvNext(nn.Module):
    """Layer-norm over channels, GELU, depthwise convolutions, a scaled shortcut: no batch-norm."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(channels, 8, 2, 2)
        self.depthwise = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.norm = nn.LayerNorm(8)
        self.wide, self.narrow = nn.Linear(8, 24), nn.Linear(24, 8)
        self.scale = nn.Parameter(torch.full((8,), 0.5))
        self.last = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.patch(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(F.gelu(self.wide(y)))
        x = x + y.permute(0, 3, 1, 2)
        return self.head(self.last(x.mean((-2, -1))))


class UNet(nn.Module):
    """Group-norm, leaky ReLUs, a transposed convolution, concatenation; maps at the end."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, 8, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.middle = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x):
        x = F.leaky_relu(self.norm(self.down(x)), 0.1)
        y = F.leaky_relu(self.up(F.leaky_relu(self.middle(x), 0.1)), 0.1)
        return F.interpolate(self.head(torch.cat([x, y], 1)), scale_factor=2.0, mode="bilinear")


class Encoder(nn.Module):
    """PyTorch's own transformer layers, which have fused kernels, and the mean of the tokens."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(channels, 12, 4, 4)
        layer = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.encoder(self.patch(x).flatten(2).mT).mean(1))


class Mixer(nn.Module):
    """Mixes the patches by a linear layer over them; Hardswish."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(channels, 12, 4, 4)
        self.tokens, self.channels = nn.Linear(36, 36), nn.Linear(12, 12)
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2)
        x = x + F.hardswish(self.tokens(x))
        x = self.norm(x.mT)
        return self.head((x + F.hardswish(self.channels(x))).mean(1))


class Rows(nn.Module):
    """A recurrent layer over the rows of the image."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels * 24, 8, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.lstm(x.transpose(1, 2).flatten(2))[0][:, -1])


class Logistic(nn.Module):
    """Multinomial logistic regression on the pixels."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(channels * 24 * 24, 5)

    def forward(self, x):
        return self.head(x.flatten(1))


class Probabilities(Vgg):
    """Ends with a softmax, in a dictionary."""

    def forward(self, x):
        return {"probabilities": super().forward(x).softmax(1)}


def _model(make, size=24, channels: int = 3, **names) -> fv.Model:
    net = nets.seeded(lambda: make(channels), 5).eval()
    return fv.Model(net, mean=0.5, std=0.25, size=size, channels=channels, **names)


def _signals() -> fv.Model:
    net = nets.seeded(lambda: nets.Small(2, 1))
    return fv.Model(net, mean=0.5, std=0.25, size=(32,), channels=2)


FOREIGN = {
    "vgg": lambda: _model(Vgg),
    "resnet": lambda: _model(ResNet),
    "tokens": nets.tokens,
    "no_relu": lambda: _model(Smooth),
    "convnext": lambda: _model(ConvNext),
    "unet": lambda: _model(UNet),
    "encoder": lambda: _model(Encoder),
    "mixer": lambda: _model(Mixer),
    "recurrent": lambda: _model(Rows),
    "linear": lambda: _model(Logistic),
    "probabilities": lambda: _model(Probabilities, logits="output[probabilities]"),
    "grey": lambda: _model(Vgg, channels=1),
    "not_square": lambda: _model(ResNet, (20, 32)),
    "signal": _signals,
}
