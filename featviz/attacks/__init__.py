"""Adversarial examples: change pictures until a network is fooled."""
