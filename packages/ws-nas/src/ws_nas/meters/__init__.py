"""The optimisation gap as five meters, tables of ground truth, and rankings repaired after the fact."""
