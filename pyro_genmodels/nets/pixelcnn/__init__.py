"""Pixelcnn."""
