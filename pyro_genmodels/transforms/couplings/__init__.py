"""Couplings."""
