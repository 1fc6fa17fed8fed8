"""Attention as ESA computes it: positions, the four parts of a sequence, the cache, the engine over it."""
