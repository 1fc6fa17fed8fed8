"""What is added to a network: block-circulant linear layers, and the parallel paths of a sub-layer."""
