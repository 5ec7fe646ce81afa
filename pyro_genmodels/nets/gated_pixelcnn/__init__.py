"""Gated pixelcnn."""
