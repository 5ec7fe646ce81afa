"""Gated PixelCNN and PixelSNAIL: two stacks of gated layers, with attention."""
