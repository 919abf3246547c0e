"""The ascent loop and its parts: evaluation, optimizers, callbacks, results."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["callbacks", "optimizers"])
