"""Whole flows as published: NICE, RealNVP, Glow, neural spline flows."""
