"""Autoregressive."""
