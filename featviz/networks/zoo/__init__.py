"""Networks by name: ``fv.load("efficientnet_lite0")``, ``fv.load("torchvision:resnet50")``."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path

from torch import nn

from featviz.errors import ModelError, did_you_mean
from featviz.networks.model import Model
from featviz.networks.zoo import efficientnet, exported, huggingface, timm, torchvision
from featviz.networks.zoo.exported import export as export

#: Sources that take a name after a colon, each with a module of this package.
SOURCES = {"torchvision": torchvision, "timm": timm, "hf": huggingface}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of ``featviz models``. ``name`` is what :func:`load` takes."""

    name: str
    description: str
    installed: bool
    install: str


def models() -> list[Entry]:
    """List what :func:`load` knows, and whether what it needs is installed."""
    entries = []
    for name in efficientnet.NAMES:
        entries.append(
            Entry(
                name,
                efficientnet.describe(name),
                efficientnet.installed(name),
                efficientnet.install(name),
            )
        )
    for prefix, source in SOURCES.items():
        entries.append(
            Entry(f"{prefix}:NAME", source.DESCRIPTION, source.installed(), source.INSTALL)
        )
    entries.append(Entry(f"NAME{exported.SUFFIX}", exported.DESCRIPTION, True, ""))
    entries.append(
        Entry(
            "package.module:factory",
            "your own: a function that returns a featviz.Model or an nn.Module",
            True,
            "",
        )
    )
    return entries


def load(name: str) -> Model:
    """Return the network called ``name``, pretrained, with its preprocessing and class names.

    ``name`` is one of the embedded networks (``efficientnet_lite0``, ``…1``, ``…2``),
    ``torchvision:NAME``, ``timm:NAME``, ``hf:NAME`` (image classifiers on the Hugging Face hub),
    a file ``NAME.pt2`` (:func:`featviz.zoo.export`) or ``package.module:factory``: a function
    without arguments that returns a :class:`featviz.Model`, or an ``nn.Module`` that takes RGB
    images in [0, 1] as they are.

    Raises
    ------
    ModelError
        If there is no such network, or with the pip command if its package is missing.
    """
    if name in efficientnet.NAMES:
        model = efficientnet.load(name)
    elif name.endswith(exported.SUFFIX):
        model = exported.load(name)
    elif ":" in name:
        prefix, _, rest = name.partition(":")
        source = SOURCES.get(prefix)
        model = source.load(rest) if source else _factory(prefix, rest)
    else:
        hint = did_you_mean(name, efficientnet.NAMES)
        known = "" if hint else f"; known: {', '.join(efficientnet.NAMES)}, torchvision:NAME, …"
        raise ModelError(f"no model {name!r}{hint}{known}")
    model.name = name
    return model


def _factory(module_name: str, function_name: str) -> Model:
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` does: the user's own file lies here
        sys.path.insert(0, here)
    spec = f"{module_name}:{function_name}"
    if not all(part.isidentifier() for part in [*module_name.split("."), function_name]):
        raise ModelError(f"no model {spec!r}: write package.module:function")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's own module raises
        raise ModelError(f"no model {spec!r}: {_reason(error)}") from error
    factory = getattr(module, function_name, None)
    if factory is None:
        near = did_you_mean(function_name, [n for n in vars(module) if not n.startswith("_")])
        raise ModelError(f"no model {spec!r}: {module_name} has no {function_name!r}{near}")
    if isinstance(factory, (Model, nn.Module)):
        made = factory
    elif callable(factory):
        try:
            made = factory()
        except Exception as error:  # whatever the user's own function raises
            raise ModelError(f"{spec} failed: {_reason(error)}") from error
    else:
        raise ModelError(f"no model {spec!r}: {function_name} is not a function")
    if isinstance(made, nn.Module):
        return Model(made)
    if isinstance(made, Model):
        return made
    raise ModelError(
        f"{spec} returned {type(made).__name__}: return a featviz.Model or an nn.Module"
    )


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    return text if isinstance(error, ImportError) else f"{type(error).__name__}: {text}"


__all__ = ["export", "load", "models"]
