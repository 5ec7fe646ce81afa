"""Distributions whose entropy and log-probability are known."""
