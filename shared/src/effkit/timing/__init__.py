"""Fair timing: warm-up, interleaved rounds, CUDA events or a monotonic clock, medians with 20 and 80 % quantiles.

Two programs timed one after the other meet two different machines: clocks drift, neighbours come and go. Here they take
turns, in the order A B, B A, A B ..., and their ratio is formed within each round before the median is taken, so that
what changes slowly cancels. Times alone are for reading; ratios are for claims.

    comparison = compare({"ours": lambda: fast(x), "timm": lambda: slow(x)}, device="cpu")
    comparison.ratio("timm", "ours")      # how many times faster ours is: (median, p20, p80)
"""

from effkit.results import ResultRow, append_csv, read_csv
from effkit.timing.comparison import Comparison, Quantiles, Timing
from effkit.timing.floor import MachineFloor, machine_floor
from effkit.timing.rounds import compare

__all__ = [
    "Comparison",
    "MachineFloor",
    "Quantiles",
    "ResultRow",
    "Timing",
    "append_csv",
    "compare",
    "machine_floor",
    "read_csv",
]
