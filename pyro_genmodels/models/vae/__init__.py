"""Variational autoencoders: VAE, beta-VAE, delta-VAE, semi-supervised."""
