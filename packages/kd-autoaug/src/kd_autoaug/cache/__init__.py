"""A teacher's answers on disk, by sample and view."""
