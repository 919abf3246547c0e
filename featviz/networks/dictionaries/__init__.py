"""Dictionaries of a layer's activations, such as sparse autoencoders, as layers of their own."""
