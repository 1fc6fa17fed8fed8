"""The evidence: published figures, rows that are checked, and the laptop-scale claim."""
