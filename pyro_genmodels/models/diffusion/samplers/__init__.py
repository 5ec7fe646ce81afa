"""Samplers of diffusion models: rules for one step from noise towards data, and guidance."""
