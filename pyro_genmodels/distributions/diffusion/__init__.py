"""Chains of diffusion models: from data to noise, and back."""
