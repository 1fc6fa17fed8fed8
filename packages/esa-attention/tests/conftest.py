"""What tests of kernels share: the mode they run in, the device, the compiler."""

import pytest

from effkit import triton
from effkit.testing import kernels

device, interpreter, compiler, no_triton = kernels.device, kernels.interpreter, kernels.compiler, kernels.no_triton


@pytest.fixture
def compile_kernel(compiler):
    """Compile a kernel of ours as a launch would, with pointers and strides that are multiples of 16.

    Pointers are ``*fp32`` and numbers ``i32`` unless said otherwise, but for the scales of attention.
    """

    def call(file, name, types, constants, **options):
        kernel = getattr(triton.kernels("esa_attention.ops", file), name)
        aligned = [n for n in kernel.arg_names if n.endswith(("_ptr", "_stride")) and n != "length_stride"]
        types = {**types, "scale_far": "fp32", "scale_local": "fp32", "*_ptr": "*fp32"}
        return triton.compile_kernel(kernel, types, constants, aligned=aligned, **options)

    return call
