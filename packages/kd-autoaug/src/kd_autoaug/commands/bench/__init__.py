"""``kd-autoaug bench``: augmentation beside its peers, operators by backend, a training step."""
