"""What needs Lightning: one module around any family, its data, checkpoints and resuming."""
