"""Networks by name: ``fv.load("efficientnet_lite0")``, ``fv.load("torchvision:resnet50")``."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path

from torch import nn

from featviz.errors import ModelError, did_you_mean, shorten
from featviz.networks.model import Model
from featviz.networks.zoo import efficientnet, exported, huggingface, timm, torchvision
from featviz.networks.zoo.exported import export as export

#: Sources of networks, written before a colon, each a module of this package.
SOURCES = {"torchvision": torchvision, "timm": timm, "hf": huggingface}


@dataclasses.dataclass(frozen=True)
class ModelListing:
    """One line of ``featviz models``; ``name`` is the argument of :func:`load`."""

    name: str
    description: str
    installed: bool
    install: str


class ModelTable(list[ModelListing]):
    """A list of :class:`ModelListing` that prints as a table."""

    def __repr__(self) -> str:
        width = max((len(entry.name) for entry in self), default=0)
        return "\n".join(
            f"{e.name.ljust(width)}  {e.description}"
            + ("" if e.installed else f"  (not installed: {e.install})")
            for e in self
        )


def models() -> ModelTable:
    """List the networks that :func:`load` knows, and whether their packages are installed."""
    listings = ModelTable()
    for name in efficientnet.NAMES:
        listings.append(
            ModelListing(
                name,
                efficientnet.describe(name),
                efficientnet.installed(name),
                efficientnet.install(name),
            )
        )
    for prefix, source in SOURCES.items():
        listings.append(
            ModelListing(f"{prefix}:NAME", source.DESCRIPTION, source.installed(), source.INSTALL)
        )
    listings.append(ModelListing(f"NAME{exported.SUFFIX}", exported.DESCRIPTION, True, ""))
    listings.append(
        ModelListing(
            "package.module:factory",
            "your own: a function that returns a featviz.Model or an nn.Module",
            True,
            "",
        )
    )
    return listings


def load(name: str, *, trust: bool = True) -> Model:
    """Return the network called ``name``, pretrained, with its preprocessing and class names.

    ``name`` is one of the embedded networks (``efficientnet_lite0``, ``…1``, ``…2``),
    ``torchvision:NAME``, ``timm:NAME``, ``hf:NAME`` (image classifiers on the Hugging Face hub), a
    file ``NAME.pt2`` (:func:`featviz.zoo.export`) or ``package.module:factory``: a function without
    arguments that returns a :class:`featviz.Model`, or an ``nn.Module`` that takes RGB images in
    [0, 1] without further preprocessing.

    Without ``trust``, for a name that was read from a file, only the embedded networks and those of
    torchvision and timm are loaded: all others run code of whoever chose the name.

    Raises
    ------
    ModelError
        If there is no such network, it is not trusted, or its package is missing (with the pip
        command).
    """
    if not isinstance(name, str):
        raise ModelError("load takes a name: wrap your own network, fv.Model(net, mean=…, std=…)")
    if not (trust or is_vetted(name)):
        raise ModelError(
            f"model {shorten(repr(name))} may run code: name it yourself, or trust the file"
        )
    if name in efficientnet.NAMES:
        model = efficientnet.load(name)
    elif name.endswith(exported.SUFFIX):
        model = exported.load(name)
    elif ":" in name:
        prefix, _, source_name = name.partition(":")
        source = SOURCES.get(prefix)
        model = source.load(source_name) if source else _factory(prefix, source_name)
    else:
        hint = did_you_mean(name, efficientnet.NAMES)
        known = f"; known: {', '.join(efficientnet.NAMES)}, torchvision:{name}, timm:{name}, …"
        known = "" if hint else known
        raise ModelError(f"no model {name!r}{hint}{known}")
    model.name = name
    return model


def is_vetted(name: str) -> bool:
    """Return whether a network comes from an installed package, whoever chose its name.

    A factory and a ``.pt2`` file are code, and anybody may upload a network to the hub.
    """
    return name in efficientnet.NAMES or (
        name.partition(":")[0] in ("torchvision", "timm") and not name.endswith(exported.SUFFIX)
    )


def _factory(module_name: str, function_name: str) -> Model:
    folder = str(Path.cwd())
    if folder not in sys.path:  # like `python -m`: the user's own modules are here
        sys.path.insert(0, folder)
    spec = f"{module_name}:{function_name}"
    if not all(part.isidentifier() for part in [*module_name.split("."), function_name]):
        raise ModelError(f"no model {spec!r}: write package.module:function")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's own module raises
        raise ModelError(f"no model {spec!r}: {_reason(error)}") from error
    factory = getattr(module, function_name, None)
    if factory is None:
        hint = did_you_mean(function_name, [n for n in vars(module) if not n.startswith("_")])
        raise ModelError(f"no model {spec!r}: {module_name} has no {function_name!r}{hint}")
    if isinstance(factory, (Model, nn.Module)):
        result = factory
    elif callable(factory):
        try:
            result = factory()
        except (Exception, SystemExit) as error:  # whatever the user's own function raises
            raise ModelError(f"{spec} failed: {_reason(error)}") from error
    else:
        raise ModelError(f"no model {spec!r}: {function_name} is not a function")
    if isinstance(result, nn.Module):
        return Model(result)
    if isinstance(result, Model):
        return result
    raise ModelError(
        f"{spec} returned {type(result).__name__}: return a featviz.Model or an nn.Module"
    )


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    return text if isinstance(error, ImportError) else f"{type(error).__name__}: {text}"


__all__ = ["export", "load", "models"]
