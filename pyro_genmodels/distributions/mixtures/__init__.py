"""Mixtures, and the distributions that they mix."""
