"""Published metrics of long-context benchmarks, each a function of an answer and what was wanted, 0 to 1."""
