"""Networks that a user's own function makes: ``package.module:factory``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from torch import nn

from featviz.errors import ModelError, did_you_mean
from featviz.networks.model import Model


def load(module_name: str, function_name: str, options: dict[str, Any]) -> Model:
    """Return the model that a function, or an object, of an importable module gives."""
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
            result = factory(**options)
        except (Exception, SystemExit) as error:  # whatever the user's own function raises
            raise ModelError(f"{spec} failed: {_reason(error)}") from error
    else:
        raise ModelError(f"no model {spec!r}: {function_name} is not a function")
    return as_model(result, spec)


def as_model(result: Any, spec: str) -> Model:
    """Return what a factory made as a model; raise :class:`ModelError` if it is none."""
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
