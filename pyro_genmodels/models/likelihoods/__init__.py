"""Likelihoods of decoders: element by element, or logistic mixtures."""
