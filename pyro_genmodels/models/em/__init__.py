"""Expectation-maximisation: of mixtures and hidden Markov models, whatever they are made of."""
