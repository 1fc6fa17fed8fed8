"""Ground truth and latencies from files: typed columns, read lazily, bound to a space."""
