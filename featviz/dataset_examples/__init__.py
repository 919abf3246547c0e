"""Dataset examples: which images of a dataset excite a unit most, and where."""
