"""Hidden Markov models: sums and maxima over all paths of hidden states."""
