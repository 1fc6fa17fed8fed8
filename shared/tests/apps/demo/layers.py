"""Something to build."""

from dataclasses import dataclass


@dataclass
class Layer:
    width: int

    def __post_init__(self):
        if self.width <= 0:
            raise ValueError(f"width must be positive, got {self.width}")
