"""Recipes: what researchers make of objectives, renderings, attribution and examples.

Each is a short composition of the public parts, and a starting point for one's own.
"""

from featviz.recipes.blocks import BuildingBlocks, building_blocks
from featviz.recipes.contributions import LayerAttribution, Part, layer_attribution
from featviz.recipes.factorization import nmf, pca
from featviz.recipes.groups import NeuronGroups, neuron_groups

__all__ = [
    "BuildingBlocks",
    "LayerAttribution",
    "NeuronGroups",
    "Part",
    "building_blocks",
    "layer_attribution",
    "neuron_groups",
    "nmf",
    "pca",
]
