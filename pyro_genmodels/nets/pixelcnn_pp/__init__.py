"""PixelCNN++: shifted convolutions at several scales."""
