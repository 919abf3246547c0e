"""Dataset examples: which images of a dataset activate a unit most, and where."""
