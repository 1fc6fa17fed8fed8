"""Models by name: ``aug_*`` of timm's transformers, the official code's variants, PVT v1 and T2T-ViT (Table 2)."""
