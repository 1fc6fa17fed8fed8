"""The evidence: the paper's figures as printed, rows that check them, and the laptop-scale claim."""
