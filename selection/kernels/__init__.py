"""Shared mathematics over vectors in blocks. Fast arithmetic only filters; float64 in one fixed order decides."""
