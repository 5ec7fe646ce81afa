"""Codebooks and the quantisers that learn them."""
