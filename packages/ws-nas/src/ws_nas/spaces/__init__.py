"""Search spaces: what a genotype is, how it is written, what its network costs; and how it is built."""
