"""Code priors."""
