"""Two reproductions beside each other: two machines, two releases of a library, two states of the code."""

from effkit.reproduce.machines.report import compare_machines

__all__ = ["compare_machines"]
