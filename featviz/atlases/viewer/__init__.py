"""A static site for browsing an atlas, without a server or requests to other sites."""

from featviz.atlases.viewer.site import view

__all__ = ["view"]
