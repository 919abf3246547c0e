"""Networks: preprocessing, layers, modified gradients and pretrained weights."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["gradients", "zoo"])
