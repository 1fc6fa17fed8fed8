"""The evidence: the figures as printed, a row for each, and the claim that is run here."""
