"""Augmentation of batches: every picture by random numbers of its own, a function of seed, sample and view."""
