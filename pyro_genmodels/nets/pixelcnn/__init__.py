"""PixelCNN: masked convolutions in residual blocks."""
