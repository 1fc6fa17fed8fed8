"""The surveyed backbones, counted, timed and looked into on this machine."""
