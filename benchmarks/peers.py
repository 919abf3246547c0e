"""The loops that featviz is compared with; ``step_time.py`` times them.

Each works on a copy of the network of its own and has ``times(steps, skip)``: the seconds that
each step took per image, after ``skip`` that are not counted. One image is made for each of
``channels``, whose mean activation is raised.

    LucidStyle  the classical recipe (Olah et al. 2017, "Feature Visualization"; lucid)
    Dreamlens   the package of that name, through its own interface with its own settings
    Bare        forward to the layer and backward to the pixels, nothing else: the floor
"""

import copy
import itertools
import random
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

import featviz as fv

DREAMLENS = "0.1.1"
COLOR = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


class MissingPeerError(Exception):
    """Says in one line what is missing for a peer to run."""


def now(device: torch.device) -> float:
    """Return the time in seconds, once ``device`` has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Loop:
    """A loop that makes one step on all images at a time."""

    def __init__(
        self, model: fv.Model, layer: str, channels: Sequence[int], size: int | None = None
    ) -> None:
        self.model, self.device = model, model.device
        self.size = (size, size) if size else model.size
        self.channels = torch.tensor(channels, device=self.device)
        self.net = copy.deepcopy(model.net).eval()
        self.module = self.net.get_submodule(layer)
        self.axis = model.layer(layer).axis

    def step(self) -> None:
        raise NotImplementedError

    def times(self, steps: int, skip: int) -> list[float]:
        marks = [now(self.device)]
        for _ in range(skip + steps):
            self.step()
            marks.append(now(self.device))
        return [(b - a) / len(self.channels) for a, b in itertools.pairwise(marks[skip:])]

    def score(self, activation: Tensor, channels: Tensor) -> Tensor:
        """Return the mean of each sample's own channel, (B,)."""
        rows = torch.arange(len(channels), device=self.device)
        return activation.movedim(self.axis, 1)[rows, channels].reshape(len(rows), -1).mean(1)


class Bare(Loop):
    """The truncated pass, in eager mode and the default memory format, on frozen weights.

    No parameterization, transforms, normalization, optimizer or checks; all images at once.
    """

    class _Reached(BaseException):
        pass

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.net.requires_grad_(False)
        self.module.register_forward_hook(self._stop)
        shape = (len(self.channels), self.model.channels, *self.size)
        self.images = torch.randn(shape, device=self.device, requires_grad=True)

    def _stop(self, module, inputs, output) -> None:
        self.activation = output
        raise self._Reached

    def step(self) -> None:
        try:
            self.net(self.images)
        except self._Reached:
            total = self.score(self.activation, self.channels).sum()
            torch.autograd.grad(total, self.images)


class _LucidImages:
    """Images as decorrelated Fourier coefficients and their optimizer, as in lucid."""

    def __init__(self, count: int, size: tuple[int, ...], device: torch.device) -> None:
        self.size = size
        vertical = torch.fft.fftfreq(size[0])[:, None]
        frequency = (vertical.square() + torch.fft.rfftfreq(size[1]).square()).sqrt()
        self.scale = (1 / frequency.clamp_min(1 / max(size))).to(device)
        shape = (count, 3, *frequency.shape, 2)
        self.spectrum = (torch.randn(shape) * 0.01).to(device).requires_grad_()
        color = torch.tensor(COLOR)
        self.color = (color / torch.linalg.vector_norm(color, dim=0).max()).to(device)
        self.optimizer = torch.optim.Adam([self.spectrum], lr=0.05)

    def __call__(self) -> Tensor:
        scaled = torch.view_as_complex(self.spectrum) * self.scale
        image = torch.fft.irfft2(scaled, s=self.size, norm="ortho") / 4
        return torch.einsum("oc,bchw->bohw", self.color, image).sigmoid()


class LucidStyle(Loop):
    """Pad, jitter, scale, rotate and jitter, one resampling each; the whole network; Adam.

    As usual in its descendants, the weights stay trainable, so that ``backward`` computes their
    gradients, too, and every step draws one transform for the whole batch. The network sees
    what comes out of the transforms, 212 to 260 px for an image of 224, unless ``fixed``:
    then it is resized to the network's size at the end. Without ``batched``, one image after
    the other, the usual usage.
    """

    def __init__(self, *args, batched: bool = True, fixed: bool = False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.net.requires_grad_(True)
        self.module.register_forward_hook(self._keep)
        self.fixed = fixed
        parts = [self.channels] if batched else list(self.channels.split(1))
        self.parts = [(_LucidImages(len(p), self.size, self.device), p) for p in parts]

    def _keep(self, module, inputs, output) -> None:
        self.activation = output

    def transform(self, images: Tensor) -> Tensor:
        images = F.pad(images, (12, 12, 12, 12), value=0.5)
        images = self._jitter(images, 8)
        factor = random.choice([1 + (i - 5) / 50 for i in range(11)])
        images = F.interpolate(images, scale_factor=factor, mode="bilinear")
        degrees = random.choice([*range(-10, 11), *[0] * 5])
        turn = torch.tensor(degrees, device=self.device).deg2rad()
        cos, sin, zero = turn.cos(), turn.sin(), torch.zeros_like(turn)
        matrix = torch.stack([cos, -sin, zero, sin, cos, zero]).view(1, 2, 3)
        shape = list(images.shape)
        grid = F.affine_grid(matrix.expand(shape[0], -1, -1), shape, align_corners=False)
        images = F.grid_sample(images, grid, align_corners=False)
        images = self._jitter(images, 4)
        if self.fixed:
            images = F.interpolate(images, self.model.size, mode="bilinear")
        return images

    @staticmethod
    def _jitter(images: Tensor, amount: int) -> Tensor:
        top, left = random.randint(0, amount), random.randint(0, amount)
        height, width = (side - amount for side in images.shape[2:])
        return images[:, :, top : top + height, left : left + width]

    def step(self) -> None:
        for images, channels in self.parts:
            images.optimizer.zero_grad()
            self.net(self.model.normalize(self.transform(images())))
            loss = -self.score(self.activation, channels).sum()
            loss.backward()
            images.optimizer.step()


class Dreamlens(Loop):
    """``FeatureVisualizer`` with the defaults of ``RenderConfig``, at the size of the others.

    Its ``visualize`` makes one image at a time. With ``batched`` all are made at once by
    its ``synthesize``, which takes a batch of canvases and an objective for each. Its own
    preprocessing hook, called once a step, is what tells the time.
    """

    def __init__(self, *args, batched: bool = False, **kwargs) -> None:
        try:
            import dreamlens
        except ImportError as error:
            line = f"pip install --no-deps dreamlens=={DREAMLENS}"
            raise MissingPeerError(f"dreamlens cannot be imported ({error}): {line}") from None
        super().__init__(*args, **kwargs)
        self.net.requires_grad_(True)
        self.peer, self.batched, self.marks = dreamlens, batched, []
        self.visualizer = dreamlens.FeatureVisualizer(
            self.net, quiet=True, preprocess=self._preprocess
        )

    def _preprocess(self, images: Tensor) -> Tensor:
        self.marks.append(now(self.device))
        return self.model.normalize(images)

    def times(self, steps: int, skip: int) -> list[float]:
        count, channels = skip + steps + 1, self.channels.tolist()
        self.marks.clear()
        if self.batched:
            self._all(channels, count)
        else:
            height, width = self.size
            config = self.peer.RenderConfig(height=height, width=width, steps=count)
            for channel in channels:
                target = self.peer.FeatureTarget.for_channel(self.module, channel)
                self.visualizer.visualize(target, method="maximize", config=config)
        marks = torch.tensor(self.marks, dtype=torch.float64).view(-1, count)[:, skip:]
        return (marks.diff().sum(0) / len(channels)).tolist()

    def images(self, method: str, steps: int, **settings) -> Tensor:
        """Return the image (B, C, *size) that ``visualize`` makes of each class."""
        made = []
        height, width = self.size
        kinds = {"maximize": self.peer.RenderConfig, "maco": self.peer.MacoConfig}
        if method == "maco":
            settings["input_shape"] = (self.model.channels, height, width)
        config = kinds[method](height=height, width=width, steps=steps, **settings)
        for channel in self.channels.tolist():
            target = self.peer.FeatureTarget.for_class(channel, layer=self.module)
            made.append(self.visualizer.visualize(target, method=method, config=config).as_nchw())
        return torch.cat(made)

    def _all(self, channels: list[int], count: int) -> None:
        height, width = self.size
        canvas = self.peer.FourierCanvasBatch(
            batch_size=len(channels), height=height, width=width, device=self.device
        )
        goals = [self.peer.ChannelObjective(channel) for channel in channels]
        self.visualizer.synthesize(
            self.module,
            image_parameter=canvas,
            custom_func=self.peer.PerSampleObjective(goals),
            height=height,
            width=width,
            iters=count,
        )
