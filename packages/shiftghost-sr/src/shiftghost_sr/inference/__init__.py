"""Whole pictures through a model: tiles, precision, memory."""
