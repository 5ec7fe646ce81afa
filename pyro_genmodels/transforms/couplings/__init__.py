"""Coupling layers and the masks that split their input."""
