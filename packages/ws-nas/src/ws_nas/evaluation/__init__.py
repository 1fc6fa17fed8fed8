"""Scores of many sub-networks, stand-alone trainings of many networks, and the naive reference of both."""
