"""The greedy search: schedule, candidates, selection, journal, and evaluators that need no training."""
