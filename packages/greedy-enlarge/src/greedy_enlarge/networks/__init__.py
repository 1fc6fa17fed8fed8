"""Networks from their architectures: through timm, and our own GhostNet."""
