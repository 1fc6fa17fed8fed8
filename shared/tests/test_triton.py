"""The loader and launcher of kernels, on kernels small enough to be checked by eye."""

import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch

from effkit.errors import UserError
from effkit.testing import assert_close_to_reference
from effkit.testing import count_launches as count_on_any_machine
from effkit.testing import kernels as testing_kernels
from effkit.testing.kernels import SPILLED, needs_triton
from effkit.triton import (
    check_runs,
    check_tensors,
    compile_kernel,
    count_launches,
    device_functions,
    dot_constants,
    installed,
    interpreted,
    kernels,
    launch,
    loading,
    power_of_two,
    tf32,
    why_not,
    widened,
)

compiler, device, interpreter = testing_kernels.compiler, testing_kernels.device, testing_kernels.interpreter
no_triton = testing_kernels.no_triton

HERE = Path(__file__).with_name("kernels")
CPU, META = torch.device("cpu"), torch.device("meta")


def toy():
    return kernels(HERE, "toy_kernel")


def scale(x, factor, **options):
    out = torch.empty_like(x)
    grid = (-(-x.numel() // 16),)
    launch(toy().scale_kernel, grid, x, out, x.numel(), factor, BLOCK=16, **options)
    return out


# Loading.


def test_import_needs_neither_triton_nor_torch():
    code = "import sys, effkit.triton; print(*{'torch', 'triton', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


@pytest.mark.parametrize(
    ("value", "on"), [("1", True), ("TRUE", True), ("yes", True), ("y", True), ("0", False), ("", False), ("no", False)]
)
def test_mode_is_read_as_triton_reads_it(monkeypatch, value, on):
    monkeypatch.setenv("TRITON_INTERPRET", value)
    assert interpreted() is on
    if installed():
        from triton import knobs

        assert bool(knobs.runtime.interpret) is on


def test_power_of_two():
    assert [power_of_two(n) for n in (0, 1, 2, 3, 4, 5, 1000)] == [1, 1, 2, 4, 4, 8, 1024]
    assert [power_of_two(n, 16) for n in (1, 16, 17)] == [16, 16, 32]


@needs_triton
def test_both_modes_live_in_one_process(monkeypatch):
    import triton

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    one, core = toy(), device_functions()
    x = torch.arange(40.0)
    assert torch.equal(scale(x, 3.0), 3 * x + 1)
    monkeypatch.delenv("TRITON_INTERPRET")
    other = toy()
    assert isinstance(other.scale_kernel, triton.JITFunction)
    assert not isinstance(one.scale_kernel, triton.JITFunction)
    assert other.add is device_functions().add is not core.add
    monkeypatch.setenv("TRITON_INTERPRET", "true")
    assert toy() is one
    assert device_functions() is core
    assert torch.equal(scale(x, 2.0), 2 * x + 1)


@pytest.mark.parametrize("first", ["interpreted", "compiled"])
def test_modes_in_either_order(compiler, first):
    """Triton itself is decorated in the mode in which it is first imported."""
    code = f"""
import os, sys
from pathlib import Path
import torch
from effkit.triton import compile_kernel, dot_constants, kernels, launch, loading

def interpret():
    os.environ["TRITON_INTERPRET"] = "1"
    toy, x, out = kernels(Path({str(HERE)!r}), "toy_kernel"), torch.randn(16, 16), torch.empty(16, 16)
    launch(toy.product_kernel, (1,), x, torch.eye(16), out, N=16, **dot_constants(torch.float32))
    assert torch.equal(out, x)

def compile():
    os.environ.pop("TRITON_INTERPRET", None)
    kernel = kernels(Path({str(HERE)!r}), "toy_kernel").rows_kernel
    assert compile_kernel(kernel, {{"length_ptr": "*i64", "*_ptr": "*fp32"}}, {{"BLOCK": 64}}).binary

assert "triton" not in sys.modules
steps = [interpret, compile] if {first == "interpreted"} else [compile, interpret]
for step in steps * 2:
    step()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_package_and_a_folder_have_kernel_files(interpreter, tmp_path):
    assert kernels("effkit.triton", "common_kernel") is device_functions()
    assert device_functions().__name__ == "effkit.triton._common_kernel_interpreted"
    with pytest.raises(FileNotFoundError, match=r"effkit\.triton has no kernel file other_kernel\.py"):
        kernels("effkit.triton", "other_kernel")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own_kernel.py").write_text(f"who = {name!r}")
    assert [kernels(tmp_path / name, "own_kernel").who for name in ("a", "b", "a")] == ["a", "b", "a"]


def test_a_file_that_fails_is_tried_again(interpreter, tmp_path):
    file = tmp_path / "half_kernel.py"
    file.write_text("raise RuntimeError('half')")
    before = set(sys.modules)
    with pytest.raises(RuntimeError, match="half"):
        kernels(tmp_path, "half_kernel")
    assert set(sys.modules) == before
    file.write_text("whole = True")
    assert kernels(tmp_path, "half_kernel").whole


def test_threads_get_the_same_kernel(interpreter, tmp_path):
    (tmp_path / "slow_kernel.py").write_text("import time\ntime.sleep(0.05)")
    found, start = [], threading.Barrier(8)

    def load():
        start.wait()
        found.append(kernels(tmp_path, "slow_kernel"))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


# Launching.


def test_launches_are_counted(interpreter):
    x = torch.arange(20.0)
    with count_launches() as outer:
        scale(x, 1.0)
        with count_launches() as inner:
            thread = threading.Thread(target=scale, args=(x, 2.0))  # a backward pass runs in a thread of its own
            thread.start()
            thread.join()
            scale(x, 3.0)
        scale(x, 4.0)
    scale(x, 5.0)
    assert inner == {"scale_kernel": 2}
    assert (outer["scale_kernel"], outer.total()) == (4, 4)


def test_a_launch_that_fails_is_not_counted(interpreter):
    with count_launches() as launches, pytest.raises(Exception, match=r"BLOCK|missing|argument"):
        launch(toy().scale_kernel, (1,), torch.zeros(4))
    assert launches.total() == 0


class _Recorded:
    """Stands for a compiled kernel, or an autotuner around one."""

    def __init__(self, fn):
        self.fn, self.calls = fn, []

    def __getitem__(self, grid):
        return lambda *arguments, **options: self.calls.append((grid, len(arguments), options))


def test_options_of_a_launch(monkeypatch):
    """What the compiler is told; ``None`` leaves a choice to triton or to an autotuner."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    places = []

    class Device:
        def __init__(self, place):
            places.append(place)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    def add_kernel():
        pass

    monkeypatch.setattr(torch.cuda, "device", Device)
    kernel = _Recorded(_Recorded(add_kernel))
    with count_launches() as launches:
        launch(kernel, (2,), None, torch.zeros(1), 7, BLOCK=4)
        launch(kernel, (2,), torch.zeros(1), warps=8, stages=3, fuse=False)
        launch(kernel, (2,), torch.zeros(1), warps=None, stages=None)
    assert places == [CPU] * 3
    assert [options for _, _, options in kernel.calls] == [
        {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True, "BLOCK": 4},
        {"num_warps": 8, "num_stages": 3, "enable_fp_fusion": False},
        {"enable_fp_fusion": True},
    ]
    assert launches == {"add_kernel": 3}


@pytest.mark.gpu
@needs_triton
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_runs_on_the_device_of_its_tensors(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x = torch.arange(40.0, device="cuda:1")
    assert torch.equal(scale(x, 3.0), 3 * x + 1)


@pytest.mark.gpu
@needs_triton
def test_launches_on_a_gpu(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x = torch.arange(40.0, device="cuda")
    scale(x, 3.0)
    names = testing_kernels.launched_on_gpu(lambda: scale(x, 3.0).add_(1))
    assert sum("scale_kernel" in name for name in names) == 1
    counted = count_on_any_machine(lambda: scale(x, 3.0).add_(1))
    assert counted.launches == len(names) == 2


def test_waiting_is_an_error_inside_and_never_after(monkeypatch):
    """Where torch warns of the mode after having entered it, too."""
    modes = [0]

    def enter(mode):
        modes.append(mode)
        warnings.warn("Synchronization debug mode is a prototype feature", UserWarning, stacklevel=1)

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", enter)
    with pytest.raises(ZeroDivisionError), testing_kernels.waiting_is_an_error():
        print(1 / (modes[-1] != "error"))
    assert modes == [0, "error", 0]


# Device functions.


def test_elementwise(device):
    x = torch.linspace(-3, 3, 37, device=device)
    torch.testing.assert_close(scale(x, 2.5, warps=1, fuse=False), 2.5 * x + 1)


def test_reductions_and_bounds_read_by_the_kernel(device):
    x = torch.randn(5, 70, generator=torch.Generator().manual_seed(0)).to(device)
    lengths = torch.tensor([0, 1, 16, 33, 70], device=device)
    sums, most, least = torch.empty(3, 5, device=device)
    launch(toy().rows_kernel, (5,), x, lengths, sums, most, least, 70, BLOCK=16)
    for row, length in enumerate(lengths.tolist()):
        part = x[row, :length]
        torch.testing.assert_close(sums[row], part.sum(), rtol=1e-5, atol=1e-6)
        assert most[row] == (part.max() if length else -float("inf"))
        assert least[row] == (part.min() if length else float("inf"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_products(device, dtype):
    a, b = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    out = torch.empty(16, 16, dtype=torch.float32, device=device)
    launch(toy().product_kernel, (1,), widened(a), widened(b), out, N=16, **dot_constants(dtype))
    assert_close_to_reference(out, a.float() @ b.float(), a.double() @ b.double())


def test_bfloat16_is_rounded_as_torch_rounds_it(interpreter):
    """To nearest, ties to even; multiplied by one, so that the operands themselves are seen."""
    bits = torch.arange(0x3F80_0000, 0x3F80_0000 + 256 * 0x1001, 0x1001, dtype=torch.int64).to(torch.int32)
    ties = torch.tensor([0x3F80_8000, 0x3F81_8000, 0x3F81_7FFF, 0x3F80_8001], dtype=torch.int32)
    x = torch.cat([bits[:-4], ties]).view(torch.float32).reshape(16, 16) * torch.tensor([1.0, -1.0] * 8)
    out = torch.empty(16, 16)
    launch(toy().product_kernel, (1,), x, torch.eye(16), out, N=16, **dot_constants(torch.bfloat16))
    assert torch.equal(out, x.bfloat16().float())


def test_float64_in_the_interpreter(interpreter):
    a, b = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out = torch.empty(16, 16, dtype=torch.float64)
    launch(toy().product_kernel, (1,), a, b, out, N=16, **dot_constants(torch.float64))
    torch.testing.assert_close(out, a @ b, rtol=0, atol=1e-13)


@pytest.fixture
def matmul_precision():
    """Give back what a test changes for all float32 products."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_constants_of_products(interpreter, monkeypatch, matmul_precision):
    import triton.language as tl

    half = {"ACC": tl.float32, "PRECISION": "ieee"}
    assert dot_constants(torch.bfloat16) == {"DOT": tl.float32, "EMULATE_BF16": True, **half}
    assert dot_constants(torch.float16) == {"DOT": tl.float16, "EMULATE_BF16": False, **half}
    monkeypatch.delenv("TRITON_INTERPRET")
    assert dot_constants(torch.bfloat16) == {"DOT": tl.bfloat16, "EMULATE_BF16": False, **half}
    assert not tf32()
    assert dot_constants(torch.float32)["PRECISION"] == "ieee"
    torch.set_float32_matmul_precision("high")
    assert tf32()
    assert dot_constants(torch.float32)["PRECISION"] == "tf32"
    assert dot_constants(torch.float64) == {**half, "DOT": tl.float64, "ACC": tl.float64, "EMULATE_BF16": False}
    with pytest.raises(UserError, match=r"kernels multiply float16, .*, got torch\.int8"):
        dot_constants(torch.int8)


def test_only_the_interpreter_needs_wide_tensors(monkeypatch):
    x = torch.tensor([1.5], dtype=torch.bfloat16)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert widened(x).dtype == torch.float32
    assert widened(x.half()).dtype == torch.float16
    monkeypatch.delenv("TRITON_INTERPRET")
    assert widened(x) is x


# Compiling for a GPU that is not here.

ROWS = {"BLOCK": 64}


def test_compiles_for_hopper(compiler):
    types = {"length_ptr": "*i64", "*_ptr": "*fp32"}
    compiled = compile_kernel(toy().rows_kernel, types, ROWS, aligned=["*_ptr", "width"])
    assert ".target sm_90" in compiled.assembly
    assert compiled.stack <= SPILLED
    assert 0 < compiled.registers <= 255
    assert compiled.binary[:4] == b"\x7fELF"
    assert compiled.shared <= 227 * 1024


def test_compiles_products_by_names_of_types(compiler):
    fixed = {"N": 64, "DOT": "bf16", "ACC": "fp32", "PRECISION": "ieee", "EMULATE_BF16": False}
    types = {"out_ptr": "*fp32", "*": "*bf16"}
    options = {"aligned": ["*_ptr"], "stages": None}
    hopper = compile_kernel(toy().product_kernel, types, fixed, **options)
    assert "wgmma" in hopper.assembly
    ampere = compile_kernel(toy().product_kernel, types, fixed, capability=80, **options)
    assert "mma.sync" in ampere.assembly
    assert "wgmma" not in ampere.assembly


def test_alignment_and_fusion_can_be_told_apart(compiler):
    """Both are seen in the program: loads of four numbers at once, one multiply-add."""
    types = {"*_ptr": "*fp32", "factor": "fp32"}
    build = lambda **options: compile_kernel(toy().scale_kernel, types, {"BLOCK": 512}, **options).assembly
    assert "ld.global.v4" in build(aligned=["*_ptr", "count"])
    assert "ld.global.v4" not in build()
    assert "fma.rn.f32" in build()
    assert "fma.rn.f32" not in build(fuse=False)


def test_interpreted_kernels_cannot_be_compiled(compiler, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(UserError, match="loaded without TRITON_INTERPRET to be compiled, got InterpretedFunction"):
        compile_kernel(toy().rows_kernel, {}, ROWS)


# Can it run here, and if not, why.


def test_without_triton_everything_says_so(no_triton):
    line = "backend='triton' needs the package triton, which is not installed; use backend='torch'"
    assert not installed()
    assert why_not(CPU) == "needs the package triton, which is not installed"
    for refused in (
        lambda: check_runs(CPU),
        lambda: check_tensors(words=torch.zeros(1)),
        lambda: kernels("effkit.triton", "another_kernel"),
    ):
        with pytest.raises(UserError) as error:
            refused()
        assert str(error.value) == line


@needs_triton
def test_without_a_gpu_the_line_says_what_to_do(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert why_not(CPU) == "needs a CUDA device, got tensors on device 'cpu'"
    assert why_not(CPU, auto=True) == "needs a CUDA device, got tensors on device 'cpu'"
    line = "backend='triton' needs a CUDA device, got index on device 'cpu'; move it to one, set TRITON_INTERPRET=1 "
    with pytest.raises(UserError) as error:
        check_tensors(scale=None, index=torch.zeros(1))
    assert str(error.value) == line + "(slow, for tests), or use backend='torch'"
    with pytest.raises(UserError) as error:
        check_runs(CPU, got="pictures on cpu", advice="use backend='auto'")
    assert str(error.value) == "backend='triton' needs a CUDA device, got pictures on cpu; use backend='auto'"
    with pytest.raises(UserError, match=r"or use backend='crt'$"):
        check_runs(CPU, plain="crt")


def test_what_the_interpreter_takes(interpreter):
    assert why_not(CPU, [torch.float64]) is None
    assert why_not(CPU, auto=True) == "TRITON_INTERPRET=1 is for tests"
    assert why_not(torch.device("cuda", 1)) is None
    assert "on the CPU while TRITON_INTERPRET is set" in why_not(torch.device("cuda"), interpreted_on=["cpu"])
    check_tensors(a=torch.zeros(1, dtype=torch.float64), b=torch.zeros(1))
    with pytest.raises(UserError, match="on the CPU while TRITON_INTERPRET is set, got pictures on meta; use nothing"):
        check_runs(META, got="pictures on meta", advice="use nothing")
    with pytest.raises(UserError, match="b must be on device 'cpu' like the other tensors, got 'meta'"):
        check_tensors(a=torch.zeros(1), b=torch.zeros(1, device="meta"))


@needs_triton
def test_what_a_gpu_takes(monkeypatch):
    """The device itself is not needed to say so."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0) if device.index else (7, 5))
    old, new = torch.device("cuda", 0), torch.device("cuda", 1)
    assert why_not(old) is why_not(new) is why_not(new, [torch.float32], auto=True) is None
    assert why_not(old, auto=True) == "the kernels are written for NVIDIA GPUs from Ampere on"
    assert why_not(new, [torch.float64], auto=True) == "no kernels in float64"
    with pytest.raises(UserError) as error:
        check_runs(new, [torch.float16, torch.float64])
    assert str(error.value) == (
        "backend='triton' on a GPU takes float16, bfloat16 or float32, got float64; use backend='torch'"
    )
    monkeypatch.setattr(torch.version, "cuda", None)
    assert why_not(new, auto=True) == "the kernels are written for NVIDIA GPUs from Ampere on"


@pytest.mark.gpu
@needs_triton
def test_tensors_on_a_gpu(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    check_tensors(a=torch.zeros(1, device="cuda"), b=None)
    with pytest.raises(UserError, match=r"b must be float16, bfloat16 or float32 on a GPU, got torch\.float64"):
        check_tensors(a=torch.zeros(1, device="cuda"), b=torch.zeros(1, device="cuda", dtype=torch.float64))
    with pytest.raises(UserError, match="b must be on device 'cuda:0' like the other tensors, got 'cpu'"):
        check_tensors(a=torch.zeros(1, device="cuda"), b=torch.zeros(1))


def test_absence_is_what_the_packages_skip_on(no_triton):
    assert loading.HAS_TRITON is False
    assert needs_triton.name == "skipif"
