"""Data sets that are bundled with a library or downloaded."""
