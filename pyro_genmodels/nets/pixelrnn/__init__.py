"""Pixelrnn."""
