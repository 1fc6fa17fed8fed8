"""Drawings: arrays or results in, one PNG out."""
