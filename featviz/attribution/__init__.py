"""Attribution: which pixels of a picture carry an objective."""

from featviz.attribution.methods import METHODS, Method, find

__all__ = ["METHODS", "Method", "find"]
