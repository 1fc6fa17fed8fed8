"""Fast paths on tensors: knows no space, no network and no supernet."""
