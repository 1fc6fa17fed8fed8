"""Distillation: the teacher, the views that it is asked about, and the loss over its best classes."""
