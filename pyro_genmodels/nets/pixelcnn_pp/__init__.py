"""Pixelcnn pp."""
