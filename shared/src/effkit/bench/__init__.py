"""What every ``bench`` command is made of: providers by cases in one interleaved run, ratios, floors, CSV, picture.

bench = Bench("tnt-vit", device="cpu", threads=2)
for batch in (1, 8):
calls = {name: inference(model, x[batch]) for name, model in models.items()}
bench.run(calls, case="tnt_s", mode="inference", x=batch, title=f"batch {batch}", baseline="timm",
limits=bench.floor.seconds(macs=macs * batch), limit_note="MACs / GEMM rate")
report = bench.report("tnt-vit bench", csv="bench.csv", folder=run_dir())
"""

from effkit.bench.bench import Bench, Measured
from effkit.bench.calls import inference, training_step
from effkit.bench.checks import check_counts, check_csv, check_providers
from effkit.bench.picture import draw_times
from effkit.bench.turns import in_turns

__all__ = [
    "Bench",
    "Measured",
    "check_counts",
    "check_csv",
    "check_providers",
    "draw_times",
    "in_turns",
    "inference",
    "training_step",
]
