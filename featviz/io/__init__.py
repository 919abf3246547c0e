"""Images, videos and datasets: how they are read and written."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["video"])
