"""Noise schedules of diffusion models: how the noise grows with time."""
