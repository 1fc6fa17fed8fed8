"""Models that need no download, and the long-context tasks they are asked."""
