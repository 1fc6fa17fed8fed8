"""The Triton kernels compiled for GPUs that are not here: few spilled registers, no fused multiply-adds."""

import re

import pytest

from effkit.testing import kernels as testing_kernels
from effkit.testing.kernels import SPILLED, needs_triton
from effkit.triton import compile_kernel, kernels
from kd_autoaug.ops.triton_backend import _PART, _READ, _WRITE

pytestmark = [needs_triton, pytest.mark.usefixtures("compiler")]
compiler = testing_kernels.compiler

TYPES = {
    "images_ptr": "*u8",
    "tables_ptr": "*u8",
    "codes_ptr": "*i32",
    "numbers_ptr": "*fp64",
    "op_ptr": "*i64",
    "arg_ptr": "*fp64",
    "how_ptr": "*i64",
    "box_ptr": "*i64",
}
REGISTERS = 128  # a thread: at more than that, 16 warps no longer fit on one multiprocessor

PREPARE = {"CHANNELS": 3, "BLOCK": _READ}
# A launch turns numbers that are 1 into constants.
PREPARE_ONE_PIXEL = {"CHANNELS": 1, "BLOCK": 128, "pixels": 1, "op_stride": 1, "arg_stride": 1, "how_stride": 1}
WRITE = {"CHANNELS": 3, "BLOCK": _WRITE, "PART": _PART, "LEVELS": False, "levels_ptr": None}
WRITE_ONE_PIXEL = {**WRITE, "CHANNELS": 1, "BLOCK": _PART, "pixels": 1, "tiles": 1}
WRITE_LEVELS = {"CHANNELS": 3, "BLOCK": _WRITE, "PART": _PART, "LEVELS": True}
BYTES, HALVES = {"out_ptr": "*u8"}, {"out_ptr": "*i16", "levels_ptr": "*i16"}


def _compiled(name, constants, types, warps, capability, fuse=False):
    kernel = getattr(kernels("kd_autoaug.ops", name), name)
    return compile_kernel(
        kernel, {**TYPES, **types}, constants, aligned=("*_ptr", "pixels"), warps=warps, stages=None, fuse=fuse,
        capability=capability,
    )  # fmt: skip


@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.slow), 90])
@pytest.mark.parametrize(
    ("name", "constants", "types", "warps"),
    [
        pytest.param("prepare_kernel", PREPARE, {}, 8, id="prepare"),
        pytest.param("prepare_kernel", PREPARE_ONE_PIXEL, {}, 4, id="prepare one pixel", marks=pytest.mark.slow),
        pytest.param("apply_kernel", WRITE, BYTES, 4, id="apply"),
        pytest.param("apply_kernel", WRITE_ONE_PIXEL, BYTES, 4, id="apply to one pixel", marks=pytest.mark.slow),
        pytest.param("apply_kernel", WRITE_LEVELS, HALVES, 4, id="apply and normalise", marks=pytest.mark.slow),
    ],
)
def test_compiles_without_spills_and_fusion(name, constants, types, warps, capability):
    compiled = _compiled(name, constants, types, warps, capability)
    assert compiled.stack <= SPILLED
    assert compiled.registers <= REGISTERS
    assembly = compiled.assembly
    assert not re.search(r"\bfma\.", assembly)
    if name == "prepare_kernel":
        assert "div.rn.f64" in assembly  # the true division of autocontrast and of the mean
    else:
        assert "mul.f64" in assembly or "mul.rn.f64" in assembly


def test_products_and_sums_would_be_fused_if_they_might():
    """The check above can fail: the same kernel with fusion has multiply-adds in float64."""
    compiled = _compiled("apply_kernel", WRITE, BYTES, 4, 90, fuse=True)
    assert re.search(r"\bfma\.rn\.f64", compiled.assembly)
