"""Channel atlases: images of all units of a network, stored, resumable and browsable."""

from featviz.errors import FeatvizError

try:
    import pyarrow as _  # noqa: F401
except ImportError as error:
    raise FeatvizError("an atlas needs pyarrow: pip install 'featviz[atlas]'") from error

from featviz.atlases.api import atlas
from featviz.atlases.reader import Atlas, AtlasImage
from featviz.atlases.viewer import view

__all__ = ["Atlas", "AtlasImage", "atlas", "view"]
