"""Shifts and folded convolutions on tensors."""
