"""Parts of ghostify: which convolutions, which of their filters, and what is said about it."""
