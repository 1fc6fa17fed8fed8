"""One step over a cached layer: which tokens are read, and attention to them, by torch or by kernels."""
