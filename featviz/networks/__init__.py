"""Networks: what they expect of their images, their layers, where their weights come from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["gradients", "zoo"])
