"""Recipes: what researchers make of objectives, renderings, attribution and examples.

Each is a short composition of the public parts, and a starting point for one's own.
"""

from featviz.recipes.blocks import BuildingBlocks, building_blocks
from featviz.recipes.circuits import Circuit, circuit, expanded_weights
from featviz.recipes.class_regions import ActivationAtlas, activation_atlas
from featviz.recipes.contributions import LayerAttribution, Part, layer_attribution
from featviz.recipes.emphasis import accentuate, faceted
from featviz.recipes.factorization import nmf, pca
from featviz.recipes.found_texts import FoundTexts
from featviz.recipes.gathering import Gathered, gather
from featviz.recipes.grids import ActivationGrid, activation_grid
from featviz.recipes.groups import NeuronGroups, neuron_groups
from featviz.recipes.human_choices import Choices, choices, questionnaire
from featviz.recipes.plane import Cell, planar
from featviz.recipes.side_by_side import together
from featviz.recipes.soft_words import soft_text
from featviz.recipes.text_search import search_text
from featviz.recipes.two_alternatives import Interpretability, machine_interpretability
from featviz.recipes.word_search import UnitWords, unit_words

__all__ = [
    "ActivationAtlas",
    "ActivationGrid",
    "BuildingBlocks",
    "Cell",
    "Choices",
    "Circuit",
    "FoundTexts",
    "Gathered",
    "Interpretability",
    "LayerAttribution",
    "NeuronGroups",
    "Part",
    "UnitWords",
    "accentuate",
    "activation_atlas",
    "activation_grid",
    "building_blocks",
    "choices",
    "circuit",
    "expanded_weights",
    "faceted",
    "gather",
    "layer_attribution",
    "machine_interpretability",
    "neuron_groups",
    "nmf",
    "pca",
    "planar",
    "questionnaire",
    "search_text",
    "soft_text",
    "together",
    "unit_words",
]
