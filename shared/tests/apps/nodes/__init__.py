"""A program whose jobs run on nodes of a cluster, in tests."""
