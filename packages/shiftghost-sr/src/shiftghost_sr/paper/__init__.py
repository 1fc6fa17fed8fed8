"""The evidence: figures as printed or computed, the rows, the laptop-scale claim."""
