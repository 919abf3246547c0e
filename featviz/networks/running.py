"""How the network of a model runs: on which device, in which state, and on which numbers."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from featviz import process_state
from featviz.errors import FeatvizError, ModelError
from featviz.networks.closures import reached_modules
from featviz.networks.sessions import evaluated_and_frozen
from featviz.networks.wrapping import FunctionNetwork, check_call, uncompiled
from featviz.types import Self, Tensor

_SESSION_LOCK = threading.Lock()


class RunnableNetwork:
    """A network that is called with images in [0, 1], (B, C, *spatial), and never changed.

    The base of :class:`~featviz.networks.model.Model`, which declares and documents what is used
    here.
    """

    net: nn.Module
    call: Callable[[Any, Tensor], Any] | None
    size: tuple[int, ...]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    range: tuple[float, float]
    order: tuple[int, ...] | None

    def __init__(self, net: nn.Module, call: Callable[[Any, Tensor], Any] | None) -> None:
        self.net = net
        self.call = call
        #: Other networks that ``call`` uses.
        self._others = check_call(call, net)
        self._affine: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = {}
        self._sessions = 0
        self._thread: int | None = None  # the one in a session

    @property
    def device(self) -> torch.device:
        """The device of the network's weights."""
        for tensor in (*self.net.parameters(), *self.net.buffers()):
            return tensor.device
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The type of the network's weights; images are cast to it."""
        for tensor in self.net.parameters():
            if tensor.is_floating_point():
                return tensor.dtype
        return torch.float32

    def on(self, device: torch.device) -> Self:
        """Return this model on ``device``: itself, or a copy if its weights are elsewhere."""
        if self.device == device:
            return self
        moved = self.copy()
        moved.net.to(device)
        return moved

    def copy(self) -> Self:
        """Return a model with a deep copy of the network.

        Raises
        ------
        ModelError
            If a plain function holds the network, which would go on calling the original.
        """
        duplicate = self._around(copy.deepcopy(self.net))
        if isinstance(duplicate.net, FunctionNetwork) and duplicate.net.owner is not None:
            copied = {id(module) for module in duplicate.net.modules()}
            if not all(id(m) in copied for m in reached_modules(duplicate.net.function)):
                raise ModelError(
                    "the network behind a plain function cannot be copied or moved: give fv.Model "
                    "an nn.Module whose forward does what the function does"
                )
        if self._others:
            raise ModelError(
                "the other networks that call uses cannot be copied or moved: give fv.Model one "
                "nn.Module that holds them all"
            )
        return duplicate

    def _around(self, net: nn.Module) -> Self:
        """Return this model with another network in the place of its own, in no session."""
        duplicate = copy.copy(self)
        duplicate.net = net
        duplicate._affine = {}
        duplicate._sessions, duplicate._thread = 0, None
        return duplicate

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Evaluate and freeze the network within the context, and restore it afterwards.

        Raises
        ------
        ModelError
            If another thread is in a session.
        """
        thread = threading.get_ident()
        with _SESSION_LOCK:
            nested = self._sessions > 0
            if nested and self._thread != thread:
                raise ModelError("the model is in use by another thread: give each a model.copy()")
            if not nested:
                self._sessions, self._thread = 1, thread
        if nested:  # already prepared by an outer session
            yield
            return
        try:
            with evaluated_and_frozen([self.net, *self._others]):
                yield
        finally:
            self._sessions, self._thread = 0, None

    def normalize(self, images: Tensor) -> Tensor:
        """Map images in [0, 1] to the network's training range, in the type of its weights."""
        key = (images.device, images.ndim)
        if key not in self._affine:
            # Tensors made in inference mode could not be used for gradients later.
            with torch.inference_mode(False):
                self._affine[key] = self._scale_and_shift(images.device)
        scale, shift = self._affine[key]
        scaled = torch.addcmul(shift.to(images.dtype), images, scale.to(images.dtype))
        if self.order is not None:
            scaled = torch.cat([scaled[:, k : k + 1] for k in self.order], 1)
        return scaled.to(self.dtype)

    def _scale_and_shift(self, device: torch.device) -> tuple[Tensor, Tensor]:
        low, high = self.range
        shape = (-1, *(1 for _ in self.size))
        with process_state.defaults():
            mean, std = torch.tensor(self.mean), torch.tensor(self.std)
            scale, shift = (high - low) / std, (low - mean) / std
            return scale.reshape(shape).to(device), shift.reshape(shape).to(device)

    def forward(self, images: Tensor) -> Any:
        """Like calling the model, but within a session and for images already checked."""
        inputs = self.normalize(images)
        with uncompiled(self.net):
            return self.net(inputs) if self.call is None else self.call(self.net, inputs)

    def check_images(self, images: Tensor) -> None:
        """Raise :class:`FeatvizError` unless ``images`` is a float (B, C, *spatial) tensor."""
        if not isinstance(images, torch.Tensor) or not images.is_floating_point():
            kind = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
            raise FeatvizError(f"images must be a float tensor in [0, 1], not {kind}")
        if images.ndim != len(self.size) + 2 or images.shape[1] != self.channels:
            axes = ", ".join(map(str, self.size))
            raise FeatvizError(
                f"images must have shape (B, {self.channels}, {axes}) or another size, "
                f"not {tuple(images.shape)}"
            )
