"""The cache: everything is kept, unrotated, and classes of transformers hold it."""
