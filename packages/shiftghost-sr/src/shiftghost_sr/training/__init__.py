"""Training on Lightning."""
