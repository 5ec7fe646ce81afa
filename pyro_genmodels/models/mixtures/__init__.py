"""Mixtures of any exact model."""
