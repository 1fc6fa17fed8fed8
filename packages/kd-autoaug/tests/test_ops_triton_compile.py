"""The Triton kernels compiled for GPUs that are not here: few spilled registers, no fused multiply-adds."""

import re
import subprocess

import pytest

from kd_autoaug.ops._triton_common import HAS_TRITON, kernels
from kd_autoaug.ops.triton_backend import _PART, _READ, _WRITE

pytestmark = pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")

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
SPILLED = 16  # bytes a thread: some versions of ptxas put one or two numbers of the prologue aside
REGISTERS = 128  # a thread: at more than that, 16 warps no longer fit on one multiprocessor

PREPARE = {"CHANNELS": 3, "BLOCK": _READ}
# A launch turns numbers that are 1 into constants.
PREPARE_ONE_PIXEL = {"CHANNELS": 1, "BLOCK": 128, "pixels": 1, "op_stride": 1, "arg_stride": 1, "how_stride": 1}
WRITE = {"CHANNELS": 3, "BLOCK": _WRITE, "PART": _PART, "LEVELS": False, "levels_ptr": None}
WRITE_ONE_PIXEL = {**WRITE, "CHANNELS": 1, "BLOCK": _PART, "pixels": 1, "tiles": 1}
WRITE_LEVELS = {"CHANNELS": 3, "BLOCK": _WRITE, "PART": _PART, "LEVELS": True}
BYTES, HALVES = {"out_ptr": "*u8"}, {"out_ptr": "*i16", "levels_ptr": "*i16"}


def _compiled(name, constants, types, warps, capability, fuse=False):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(kernels(name), name)
    types = {**TYPES, **types}
    signature = {a: "constexpr" if a in constants else types.get(a, "i32") for a in kernel.arg_names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, argument in enumerate(kernel.arg_names)
        if signature[argument] != "constexpr" and (argument.endswith("_ptr") or argument == "pixels")
    }
    source = ASTSource(kernel, signature, constants, aligned)
    options = {"num_warps": warps, "enable_fp_fusion": fuse}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def _usage(cubin, folder):
    """Registers and bytes of stack of a thread."""
    from triton import knobs

    binary = folder / "kernel.cubin"
    binary.write_bytes(cubin)
    command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(binary)]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {key: int(number) for key, number in re.findall(r"(REG|STACK):(\d+)", report)}


@pytest.fixture(autouse=True)
def compiler(monkeypatch, tmp_path):
    """Compile for real, and leave nothing in the home folder; skip where triton has no compiler for NVIDIA."""
    from triton import knobs

    for tool in ("ptxas", "cuobjdump"):
        try:
            getattr(knobs.nvidia, tool).path  # noqa: B018
        except (AttributeError, RuntimeError) as error:
            pytest.skip(f"this build of triton has no {tool}: {error}")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))


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
def test_compiles_without_spills_and_fusion(name, constants, types, warps, capability, tmp_path):
    compiled = _compiled(name, constants, types, warps, capability)
    used = _usage(compiled.asm["cubin"], tmp_path)
    assert used["STACK"] <= SPILLED
    assert used["REG"] <= REGISTERS
    assembly = compiled.asm["ptx"]
    assert not re.search(r"\bfma\.", assembly)
    if name == "prepare_kernel":
        assert "div.rn.f64" in assembly  # the true division of autocontrast and of the mean
    else:
        assert "mul.f64" in assembly or "mul.rn.f64" in assembly


def test_products_and_sums_would_be_fused_if_they_might():
    """The check above can fail: the same kernel with fusion has multiply-adds in float64."""
    compiled = _compiled("apply_kernel", WRITE, BYTES, 4, 90, fuse=True)
    assert re.search(r"\bfma\.rn\.f64", compiled.asm["ptx"])
