"""A network with its preprocessing."""

from __future__ import annotations

import contextlib
import copy
import html
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from featviz.errors import (
    FeatvizError,
    FeatvizWarning,
    LayerError,
    ModelError,
    UnitError,
    did_you_mean,
)
from featviz.networks import layers as _layers
from featviz.networks import preprocessing
from featviz.networks.closures import reached_modules
from featviz.networks.layers import LayerTable
from featviz.networks.preprocessing import as_numbers, is_sequence
from featviz.types import LayerInfo, Size, Tensor

_SESSION_LOCK = threading.Lock()


class _Function(nn.Module):
    """Wraps a plain function as a network without inner layers."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        # The networks behind the function are known, and evaluated and frozen like any other.
        self.owner: nn.Module | None = None
        if not isinstance(function, nn.Module):
            owners = reached_modules(function)
            self.owner = owners[0] if len(owners) == 1 else nn.ModuleList(owners) or None

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


class _Classifier(nn.Module):
    """The module of :meth:`Model.as_module`; it leaves the modes of the network alone."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.net = model.net
        self._model = model

    def forward(self, images: Tensor) -> Tensor:
        return self._model.activations(images, [self._model.logits])[self._model.logits]

    def train(self, mode: bool = True) -> _Classifier:
        self.training = mode
        return self


class Model:
    """Any network with its preprocessing; its images are floats in [0, 1], (B, C, *spatial).

    The network is never changed: weights, ``requires_grad`` flags, hooks and train/eval modes are
    the same after every call as before it, even if the call raises.

    Parameters
    ----------
    net
        An ``nn.Module``, or any callable that maps a batch to tensors. The networks that it
        reaches are found, evaluated and frozen: the owner of a bound method (``net.encode``), and
        those in a function's closure, defaults and global names.
    mean, std
        Each channel becomes (x - mean) / std: one number or one per channel, in units of ``range``.
        Most ImageNet networks: (0.485, 0.456, 0.406), (0.229, 0.224, 0.225).
    range
        The values of black and white before ``mean`` and ``std`` are applied: (0, 1), or (0, 255)
        or (-1, 1) for networks trained on such images.
    size
        The size of its images, as a side (square images) or (H, W), (L,), (D, H, W).
    channels
        The number of channels, if ``mean`` and ``std`` do not determine it; 3 otherwise.
    classes
        The names of the classes, for ``class:"Egyptian cat"``.
    logits
        The layer that holds the class logits: ``output``, or for example ``output[logits]``.
    text
        A text encoder with the network's embedding space, for ``text_match``: text to (D,).
    axes
        The unit axis of some layers, batch included: ``{"head": 1}`` for maps (B, C, …), -1 for
        the last. Needed only where a warning says that the network's operations do not tell.
    order
        The image's channels in the order in which the network takes them, (2, 1, 0) for BGR;
        ``mean`` and ``std`` stay in the image's own order.
    name
        The name given to :func:`featviz.load`; images record it, so that they can be reproduced.

    Raises
    ------
    ModelError
        If ``net`` is not callable or the numbers are inconsistent.
    """

    def __init__(
        self,
        net: nn.Module | Callable[..., Any],
        *,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        range: tuple[float, float] = (0.0, 1.0),
        size: Size = 224,
        channels: int | None = None,
        classes: Sequence[str] | None = None,
        logits: str = _layers.OUTPUT,
        text: Callable[[str], Tensor] | None = None,
        axes: Mapping[str, int] | None = None,
        order: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        if not callable(net):
            raise ModelError(
                f"a network must be an nn.Module or callable, not {type(net).__name__}"
            )
        self.net = net if isinstance(net, nn.Module) else _Function(net)
        self.size: tuple[int, ...] = (size, size) if isinstance(size, int) else tuple(size)
        if not self.size or min(self.size) < 1:
            raise ModelError(f"size must be positive, not {size}")
        self.mean, self.std = (
            as_numbers(mean, 0.0),
            as_numbers(std, 1.0),
        )
        lengths = {len(n) for n, v in ((self.mean, mean), (self.std, std)) if is_sequence(v)}
        self.channels = channels or max(lengths, default=3 if len(self.size) == 2 else 1)
        if lengths - {self.channels}:
            raise ModelError(
                f"mean and std have {sorted(lengths)} numbers for {self.channels} channels"
            )
        if self.channels < 1:
            raise ModelError(f"channels must be positive, not {channels}")
        self.mean, self.std = (
            numbers * self.channels if len(numbers) == 1 else numbers
            for numbers in (self.mean, self.std)
        )
        if min(self.std) <= 0:
            raise ModelError(f"std must be positive, not {std}")
        self.range = preprocessing.check_range(self.mean, self.std, range)
        preprocessing.check_logits(self.net, logits)
        self.classes = tuple(classes) if classes is not None else None
        self.logits = logits
        self.text = text
        self.axes = dict(axes or {})
        self.order = None if order is None else tuple(order)
        if self.order is not None and sorted(self.order) != [i for i, _ in enumerate(self.mean)]:
            raise ModelError(
                f"order must have each of the {self.channels} channels once, not {self.order}"
            )
        self.name = name
        self._tables: dict[tuple[int, ...], LayerTable] = {}
        self._affine: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = {}
        self._sessions = 0
        self._guesses_told: set[str] = set()
        self._thread: int | None = None  # the one in a session

    def __repr__(self) -> str:
        label = self.name or type(self.net).__name__
        return f"<Model {label}: {self.channels} channels, size {self.size}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(i.name)}<td>{html.escape(i.type)}"
            f"<td>{'x'.join(map(str, i.shape))}<td>{i.units}"
            for i in self.layers()
        )
        head = "<tr><th>layer<th>type<th>shape<th>units"
        table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
        summary = html.escape(repr(self)[1:-1])
        return f"<details><summary>{summary}</summary>{table}</details>"

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

    def on(self, device: torch.device) -> Model:
        """Return this model on ``device``: itself, or a copy if its weights are elsewhere."""
        if self.device == device:
            return self
        moved = self.copy()
        moved.net.to(device)
        return moved

    def copy(self) -> Model:
        """Return a model with a deep copy of the network.

        Raises
        ------
        ModelError
            If a plain function holds the network, which would go on calling the original.
        """
        duplicate = copy.copy(self)
        duplicate.net = copy.deepcopy(self.net)
        if isinstance(duplicate.net, _Function) and duplicate.net.owner is not None:
            copied = {id(module) for module in duplicate.net.modules()}
            if not all(id(m) in copied for m in reached_modules(duplicate.net.function)):
                raise ModelError(
                    "the network behind a plain function cannot be copied or moved: give fv.Model "
                    "an nn.Module whose forward does what the function does"
                )
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
        modes = [(m, m.training) for m in self.net.modules()]
        flags = [(p, p.requires_grad) for p in self.net.parameters()]
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
            for module, _ in modes:
                module.training = False
            for parameter, _ in flags:
                parameter.requires_grad_(False)
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
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
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        shape = (-1, *(1 for _ in self.size))
        scale, shift = (high - low) / std, (low - mean) / std
        return scale.reshape(shape).to(device), shift.reshape(shape).to(device)

    def __call__(self, images: Tensor) -> Any:
        """Return what the network returns for images (B, C, *spatial) in [0, 1]."""
        self.check_images(images)
        with self.session():
            return self.net(self.normalize(images))

    def as_module(self) -> nn.Module:
        """Return a module from images in [0, 1] to class logits, for attack libraries.

        ``foolbox.PyTorchModel(model.as_module(), bounds=(0, 1))``,
        ``torchattacks.PGD(model.as_module())``. The network is evaluated and frozen within each
        call; switching the module to training mode does not switch the network.
        """
        return _Classifier(self).eval()

    def activations(self, images: Tensor, names: str | Iterable[str]) -> dict[str, Tensor]:
        """Return the activations of the named layers, differentiable with respect to ``images``.

        The forward pass ends at the deepest of them. See :mod:`featviz.networks.layers` for names.

        Raises
        ------
        LayerError
            For an unknown name, with similar ones.
        """
        self.check_images(images)
        names = [names] if isinstance(names, str) else list(names)
        table = self.layers(tuple(images.shape[2:]))
        for name in names:
            table.find(name)
        with self.session():
            return self.capture(images, names, table)

    def capture(self, images: Tensor, names: Iterable[str], table: LayerTable) -> dict[str, Tensor]:
        """Like :meth:`activations`, but within a session and for names already checked."""
        return _layers.capture(
            self.net, lambda: self.net(self.normalize(images)), images, names, table
        )

    def layers(self, size: Size | None = None) -> LayerTable:
        """List every layer that runs on an image of ``size`` (default: the model's own).

        The network runs once, on a gray image; the table is cached.
        """
        shape = self.size if size is None else (size, size) if isinstance(size, int) else size
        if shape not in self._tables:
            images = torch.full((1, self.channels, *shape), 0.5, device=self.device)
            like = None if shape == self.size else self.layers()
            with self.session():
                try:
                    self._tables[shape] = _layers.probe(
                        self.net, lambda: self.net(self.normalize(images)), images, like, self.axes
                    )
                except LayerError:
                    raise
                except (RuntimeError, ValueError, IndexError, AssertionError, TypeError) as error:
                    reason = " ".join(str(error).split())[:200]
                    raise ModelError(
                        f"the network cannot take images of shape {tuple(images.shape)} "
                        f"(model size {self.size}): {reason}"
                    ) from error
        return self._tables[shape]

    def layer(self, name: str, size: Size | None = None) -> LayerInfo:
        """Return one layer's :class:`LayerInfo`; raise :class:`LayerError` if there is none.

        Warns once for each layer whose unit axis had to be guessed from its shape.
        """
        info = self.layers(size).find(name)
        if info.guessed and name not in self._guesses_told:
            self._guesses_told.add(name)
            shape = ", ".join(map(str, info.shape))
            warnings.warn(
                f"layer {name!r} (B, {shape}): which axis counts the units is a guess, axis "
                f"{info.axis}; declare it with fv.Model(net, axes={{{name!r}: {info.axis}}})",
                FeatvizWarning,
                stacklevel=2,
            )
        return info

    def __getitem__(self, name: str) -> LayerInfo:
        return self.layer(name)

    def class_index(self, name: str) -> int:
        """Return the index of the class called ``name``, ignoring case.

        Raises
        ------
        UnitError
            If the model has no class names, or none or several match.
        """
        if self.classes is None:
            raise UnitError(f"the model has no class names: give the index instead of {name!r}")
        folded_name = name.casefold()
        matches = [i for i, c in enumerate(self.classes) if c.casefold() == folded_name]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UnitError(f"class {name!r} is ambiguous: give one of the indices {matches}")
        by_folded_name = {c.casefold(): c for c in self.classes}
        containing = [c for c in self.classes if folded_name in c.casefold().split()]
        if containing:
            raise UnitError(f"no class {name!r}; did you mean {_either(containing)}?")
        hint = did_you_mean(folded_name, by_folded_name)
        for folded, original in by_folded_name.items():
            hint = hint.replace(repr(folded), repr(original))
        raise UnitError(f"no class {name!r}{hint}")

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


def _either(names: list[str], most: int = 6) -> str:
    return " or ".join(map(repr, names[:most])) + (" or …" if len(names) > most else "")
