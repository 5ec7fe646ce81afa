"""Networks over vectors and sequences: MADE, n-grams, LSTMs, WaveNet."""
