"""NVAE: a hierarchy of latent maps with residual posteriors."""
