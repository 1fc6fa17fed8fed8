"""Compile kernels for a GPU that is not here, and read what they use of it; for tests and for tuning tiles."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from esa_attention.ops._triton_common import kernels

__all__ = ["Usage", "compile_kernel"]


class Usage(NamedTuple):
    """What one program of a kernel uses.

    Attributes:
        registers: Of each thread, of at most 255.
        stack: Bytes of each thread in local memory: 0 means that no register is spilled.
        shared: Bytes of shared memory.
        assembly: The program in PTX.
    """

    registers: int
    stack: int
    shared: int
    assembly: str


def compile_kernel(
    file: str,
    name: str,
    types: Mapping[str, str],
    constants: Mapping[str, Any],
    *,
    warps: int = 4,
    stages: int = 2,
    fuse: bool = True,
    capability: int = 90,
) -> Usage:
    """Compile a kernel as a launch would, with pointers and strides that are multiples of 16.

    Args:
        file: Kernel file, e.g. ``score_kernel``.
        name: Kernel in it.
        types: Triton types of arguments, e.g. ``{"index_ptr": "*bf16"}``. Other pointers are ``*fp32``, other numbers
            ``i32``, but for the scales of attention.
        constants: Values of ``constexpr`` arguments and of those that are ``None``; types by name, e.g. ``"bf16"``.
        warps: Warps of a program.
        stages: Stages of its software pipeline.
        fuse: Whether multiply-adds may be fused.
        capability: Compute capability of the GPU, times 10.
    """
    import triton
    import triton.language as tl
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(kernels(file), name)
    by_name = {"fp16": tl.float16, "bf16": tl.bfloat16, "fp32": tl.float32}
    fixed = {key: by_name[value] if key in ("DOT", "ACC") else value for key, value in constants.items()}
    signature = {}
    for argument in kernel.arg_names:
        number = "fp32" if argument in ("scale_far", "scale_local") else "i32"
        default = "*fp32" if argument.endswith("_ptr") else number
        signature[argument] = "constexpr" if argument in fixed else types.get(argument, default)
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, argument in enumerate(kernel.arg_names)
        if argument.endswith(("_ptr", "_stride")) and argument not in fixed and argument != "length_stride"
    }
    source = ASTSource(kernel, signature, fixed, aligned)
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": fuse}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(binary)]
        report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    used = {key: int(number) for key, number in re.findall(r"(REG|STACK):(\d+)", report)}
    return Usage(used["REG"], used["STACK"], compiled.metadata.shared, compiled.asm["ptx"])
