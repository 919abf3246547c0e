"""Checks: whether a feature visualization can be trusted."""
