"""Augmented shortcuts put into networks of others: which blocks are known, what is asked of them, what is changed."""
