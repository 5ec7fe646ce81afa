"""Networks inside the coupling layers of RealNVP and Glow."""
