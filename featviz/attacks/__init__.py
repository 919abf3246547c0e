"""Adversarial attacks: perturb images until a network misclassifies them."""
