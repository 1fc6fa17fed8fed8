"""The families of weight-sharing search, one class each, without Lightning."""
