"""The verbs. Each chooses parts for the one loop in :mod:`featviz.engine`."""

from featviz.recipes.render import render

__all__ = ["render"]
