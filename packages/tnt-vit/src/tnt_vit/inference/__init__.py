"""A trained TNT made ready to predict: exact rewritings, prepacked weights, and files for other runtimes."""
