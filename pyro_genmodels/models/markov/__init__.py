"""Hidden Markov models of any exact model."""
