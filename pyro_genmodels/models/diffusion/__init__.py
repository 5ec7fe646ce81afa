"""Diffusion models: a chain of ever noisier data, and a network that leads back."""
