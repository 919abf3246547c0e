"""Statistics of datasets: of the images themselves, and of what they do to a network."""
