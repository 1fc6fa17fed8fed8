"""How alike the tokens of a network are, layer by layer, and how alike theory lets them become."""
