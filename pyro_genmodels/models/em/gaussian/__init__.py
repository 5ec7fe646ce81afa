"""Gaussian components: their training rows, and covariances of each form."""
