"""Autoregressive distributions as models and as likelihoods."""
