"""Arithmetic on numbers and arrays: knows no network, no family and no search."""
