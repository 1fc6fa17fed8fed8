"""Two readings of a decoding step in C, compiled where the user has a compiler."""
