"""Measures of attribution: what a map is worth, by the experiments of the field."""
