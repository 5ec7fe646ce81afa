"""Flows as models, with dequantisation of discrete data."""
