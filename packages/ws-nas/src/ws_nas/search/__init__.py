"""Search over a space with any scorer: random, regularised evolution, constrained evolution."""
