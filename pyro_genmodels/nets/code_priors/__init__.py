"""Networks of the priors over the codes of a VQ-VAE."""
