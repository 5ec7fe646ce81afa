"""Nvae."""
