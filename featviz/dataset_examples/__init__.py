"""Data-set examples: which images of a data set excite a unit most, and where."""
