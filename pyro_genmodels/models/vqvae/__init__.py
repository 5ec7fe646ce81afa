"""Vqvae."""
