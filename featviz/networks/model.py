"""A network with its preprocessing."""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from featviz.errors import FeatvizWarning, ModelError
from featviz.networks import preprocessing
from featviz.networks.capturing import capture
from featviz.networks.class_names import class_index
from featviz.networks.layers import OUTPUT, LayerTable
from featviz.networks.listing import list_layers
from featviz.networks.running import RunnableNetwork
from featviz.networks.wrapping import Classifier, as_network
from featviz.types import LayerInfo, Size, Tensor


class Model(RunnableNetwork):
    """Any network with its preprocessing; its images are floats in [0, 1], (B, C, *spatial).

    The network is never changed: weights, ``requires_grad`` flags, hooks and train/eval modes are
    the same after every call as before it, even if the call raises.

    Parameters
    ----------
    net
        An ``nn.Module``, or any callable that maps a batch to tensors. The networks that it
        reaches are found, evaluated and frozen: the owner of a bound method (``net.encode``), and
        those in a function's closure, defaults and global names. Of a compiled network, the module
        behind it is used.
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
    call
        How the network is called, ``call(net, images)`` with normalized images, if ``net(images)``
        does not do: with keywords or further inputs (``net(pixel_values=x, ids=ids)``), channels
        last (``net(x.movedim(1, -1))``), a signal without a channel axis (``net(x[:, 0])``).
    crop
        The central fraction of each side of a picture that the network's own preprocessing keeps,
        0.875 for "resize to 256, crop to 224"; image files are read that way.
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
        logits: str = OUTPUT,
        text: Callable[[str], Tensor] | None = None,
        axes: Mapping[str, int] | None = None,
        order: Sequence[int] | None = None,
        call: Callable[[Any, Tensor], Any] | None = None,
        crop: float = 1.0,
        name: str | None = None,
    ) -> None:
        if not callable(net):
            raise ModelError(
                f"a network must be an nn.Module or callable, not {type(net).__name__}"
            )
        super().__init__(as_network(net), call)
        preprocessing.check_differentiable(self.net)
        self.size: tuple[int, ...] = preprocessing.check_sides(size)
        self.channels: int
        self.mean: tuple[float, ...]
        self.std: tuple[float, ...]
        self.channels, self.mean, self.std = preprocessing.per_channel(
            mean, std, channels, default=3 if len(self.size) == 2 else 1
        )
        self.range: tuple[float, float] = preprocessing.check_range(self.mean, self.std, range)
        preprocessing.check_logits(self.net, logits)
        self.classes: tuple[str, ...] | None = preprocessing.check_names(classes)
        self.logits = logits
        self.text = text
        self.axes: dict[str, int] = preprocessing.check_axes(axes)
        self.order: tuple[int, ...] | None = preprocessing.check_order(order, self.channels)
        self.crop: float = preprocessing.check_crop(crop)
        if not isinstance(name, (str, type(None))):
            raise ModelError(f"name must be a text, not {type(name).__name__}")
        self.name = name
        self._tables: dict[tuple[int, ...], LayerTable] = {}
        self._guesses_told: set[str] = set()

    @classmethod
    def of(cls, net: nn.Module, source: Any = None, **options: Any) -> Model:
        """Return a model with the preprocessing that comes with a network.

        Parameters
        ----------
        net
            A network of timm or open_clip, which carry their record; of torchvision or
            transformers, with ``source``.
        source
            torchvision's weights entry (``ResNet50_Weights.DEFAULT``), or the processor of
            transformers, which is measured and checked on a random image.
        **options
            Arguments of :class:`Model` that override those found.

        Raises
        ------
        ModelError
            If the preprocessing is not known, or cannot be matched.
        """
        from featviz.networks.zoo.records import declared  # the zoo imports this module

        return cls(net, **(declared(net, source) | options))

    def __repr__(self) -> str:
        label = self.name or type(self.net).__name__
        return f"<Model {label}: {self.channels} channels, size {self.size}>"

    def _repr_html_(self) -> str:
        summary = html.escape(repr(self)[1:-1])
        return f"<details><summary>{summary}</summary>{self.layers()._repr_html_()}</details>"

    def __call__(self, images: Tensor) -> Any:
        """Return what the network returns for images (B, C, *spatial) in [0, 1]."""
        self.check_images(images)
        with self.session():
            return self.forward(images)

    def as_module(self) -> nn.Module:
        """Return a module from images in [0, 1] to class logits, for attack libraries.

        ``foolbox.PyTorchModel(model.as_module(), bounds=(0, 1))``,
        ``torchattacks.PGD(model.as_module())``. The network is evaluated and frozen within each
        call; switching the module to training mode does not switch the network.
        """
        return Classifier(self).eval()

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
        return capture(self.net, lambda: self.forward(images), images, names, table)

    def layers(self, size: Size | None = None) -> LayerTable:
        """List every layer that runs on an image of ``size`` (default: the model's own).

        The network runs once, on a gray image; the table is cached.
        """
        shape = self.size if size is None else (size, size) if isinstance(size, int) else size
        if shape not in self._tables:
            like = None if shape == self.size else self.layers()
            self._tables[shape] = list_layers(self, shape, like, self.axes)
        return self._tables[shape]

    def takes(self, size: Size) -> bool:
        """Return whether the network takes images of ``size``; many take their own size only.

        A network that would take the parts of one image for several (``x.view(-1, features)``) does
        not.
        """
        try:
            table = self.layers(size)
        except ModelError:
            return False
        batched = {info.name for info in self.layers() if info.batched}
        return all(info.batched for info in table if info.name in batched)

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
        return class_index(self.classes, name)
