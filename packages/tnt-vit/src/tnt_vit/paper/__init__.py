"""The evidence: the paper's figures as printed, ours beside them, and the laptop-scale claim."""
