"""Fast paths of a step, on tensors: kernels, their wrappers, the same in torch, and what chooses between them."""
