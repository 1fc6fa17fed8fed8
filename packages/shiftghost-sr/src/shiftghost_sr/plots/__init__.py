"""Arrays in, PNG out."""
