"""A static site that shows an atlas: files only, no server, no request to anywhere else."""

from featviz.atlases.viewer.site import view

__all__ = ["view"]
