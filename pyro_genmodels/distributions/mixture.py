"""Mixtures of any distributions, whose draws are of one component each."""
