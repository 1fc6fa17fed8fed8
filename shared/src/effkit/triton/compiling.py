"""Compile kernels for a GPU that is not here, and read what they use of it; for tests and for tuning tiles."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from effkit.errors import UserError

__all__ = ["Compiled", "compile_kernel"]

_TYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}


@dataclass(frozen=True)
class Compiled:
    """A compiled kernel, and what one program of it uses.

    Attributes:
        assembly: The program in PTX.
        shared: Bytes of shared memory.
        binary: The program as machine code.
    """

    assembly: str
    shared: int
    binary: bytes = field(repr=False)

    @property
    def registers(self) -> int:
        """Registers of each thread, of at most 255."""
        return self._usage["REG"]

    @property
    def stack(self) -> int:
        """Bytes of each thread in local memory: 0 means that no register is spilled."""
        return self._usage["STACK"]

    @cached_property
    def _usage(self) -> dict[str, int]:
        from triton import knobs

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "kernel.cubin"
            file.write_bytes(self.binary)
            command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(file)]
            report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return {key: int(number) for key, number in re.findall(r"(REG|STACK):(\d+)", report)}


def compile_kernel(
    kernel: Any,
    types: Mapping[str, str],
    constants: Mapping[str, Any],
    *,
    aligned: Iterable[str] = (),
    warps: int = 4,
    stages: int | None = 2,
    fuse: bool = True,
    capability: int = 90,
) -> Compiled:
    """Compile a kernel as a launch would.

    Args:
        kernel: From :func:`effkit.triton.kernels`, loaded without ``TRITON_INTERPRET``.
        types: Triton types of arguments by name or pattern, the first that fits, e.g. ``{"index_ptr": "*bf16",
            "*_ptr": "*fp32"}``. Others are ``i32``.
        constants: Values of ``constexpr`` arguments, of those that are ``None``, and of numbers that are 1, which a
            launch turns into constants; types by name, e.g. ``"bf16"``.
        aligned: Names or patterns of pointers and numbers that are multiples of 16; a launch finds out by itself.
        warps: Warps of a program.
        stages: Stages of its software pipeline; ``None`` leaves them to triton.
        fuse: Whether multiply-adds may be fused.
        capability: Compute capability of the GPU, times 10.

    Returns:
        The program.

    Raises:
        UserError: If the kernel was loaded to be interpreted.
    """
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if not isinstance(kernel, triton.JITFunction):
        raise UserError(f"kernel must be loaded without TRITON_INTERPRET to be compiled, got {type(kernel).__name__}")
    patterns = tuple(aligned)
    names = {k: v for k, v in constants.items() if isinstance(v, str) and v in _TYPES}
    fixed = {**constants, **{key: getattr(tl, _TYPES[name]) for key, name in names.items()}}
    signature, divisible = {}, {}
    for place, argument in enumerate(kernel.arg_names):
        if argument in fixed:
            signature[argument] = "constexpr"
            continue
        signature[argument] = next((t for pattern, t in types.items() if fnmatchcase(argument, pattern)), "i32")
        if any(fnmatchcase(argument, pattern) for pattern in patterns):
            divisible[(place,)] = [["tt.divisibility", 16]]
    options: dict[str, Any] = {"num_warps": warps, "enable_fp_fusion": fuse}
    if stages is not None:
        options["num_stages"] = stages
    source = ASTSource(kernel, signature, fixed, divisible)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return Compiled(compiled.asm["ptx"], compiled.metadata.shared, compiled.asm["cubin"])
