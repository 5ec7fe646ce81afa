"""Networks that predict what was clean, or the noise, of data with noise: for diffusion models."""
