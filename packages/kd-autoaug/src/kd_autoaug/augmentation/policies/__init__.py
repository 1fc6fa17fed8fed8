"""Policies: spaces of magnitudes, tables of operators by name, and drawing from them."""
