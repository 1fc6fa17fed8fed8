"""Files of weights: augmented models, paths alone, and the official code's layout."""
