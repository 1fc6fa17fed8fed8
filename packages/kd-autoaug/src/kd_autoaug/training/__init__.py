"""Training on views: bytes with sample and view numbers, and the Lightning module with a teacher beside it."""
