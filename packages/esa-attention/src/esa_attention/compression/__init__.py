"""Compressed queries and keys: the maps of a layer, of a model, the file that holds them, and whose they are."""
