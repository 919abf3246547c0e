"""Adversarial examples: change images until a network is fooled."""
