"""The evidence: figures as printed, rows of all tables, the laptop-scale claim."""
