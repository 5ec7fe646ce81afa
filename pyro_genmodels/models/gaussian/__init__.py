"""Linear-Gaussian models whose evidence is exact."""
