"""Larger networks that start as the function of a smaller one."""
