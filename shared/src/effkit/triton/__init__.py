"""Triton kernels in three states (compiled, interpreted, absent): loading, launching, counting and compiling them.

- Importing this imports neither triton (there is none on macOS) nor torch; the first call does.
- ``TRITON_INTERPRET=1`` runs kernels in NumPy on the CPU, for tests. ``triton.jit`` decides at decoration time whether
  a kernel is compiled or interpreted, so kernel files are executed once per mode (:func:`kernels`), and both modes can
  live in one process. The interpreter has no bfloat16: tensors are widened, and kernels round what they multiply.
- Nothing here reads a tensor on the host, so calls can be captured in CUDA graphs. The first call for a kind of input
  compiles: make it outside the capture.

A package's kernel file is an ordinary file in its ``ops`` folder that takes the shared device functions like this::

    import triton
    import triton.language as tl

    from effkit.triton import device_functions, kernels

    _core, _common = device_functions(), kernels(__package__, "common_kernel")
    add, operand, segments = _core.add, _core.operand, _common.segments

Kernels name device functions by such globals: triton follows those, and not attributes of modules. A wrapper then calls
``launch(kernels(__package__, "score_kernel").score_kernel, grid, ...)``.
"""

from effkit.triton.availability import check_runs, check_tensors, why_not
from effkit.triton.compiling import Compiled, compile_kernel
from effkit.triton.dots import dot_constants, tf32, widened
from effkit.triton.launching import count_launches, launch
from effkit.triton.loading import device_functions, installed, interpreted, kernels, power_of_two

__all__ = [
    "Compiled",
    "check_runs",
    "check_tensors",
    "compile_kernel",
    "count_launches",
    "device_functions",
    "dot_constants",
    "installed",
    "interpreted",
    "kernels",
    "launch",
    "power_of_two",
    "tf32",
    "why_not",
    "widened",
]
