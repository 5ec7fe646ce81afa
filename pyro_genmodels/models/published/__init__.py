"""Sizes and training settings of the papers."""
