"""Parameters of a batch drawn in one launch: the bits of the tensor operations, and a budget of launches."""

import re

import pytest
import torch

from effkit.errors import UserError
from effkit.testing import count_launches
from effkit.testing import kernels as testing_kernels
from effkit.testing.kernels import needs_triton
from effkit.triton import compile_kernel, kernels
from kd_autoaug import BatchAugment, Policy
from kd_autoaug.augmentation import augment, rng
from kd_autoaug.ops import Op

compiler, interpreter = testing_kernels.compiler, testing_kernels.interpreter
pytestmark = needs_triton

INDEX = torch.tensor([0, 1, 2**31, 2**33 + 5, 2**62, *range(100, 232)])  # more than one program
VIEWS = (INDEX * 77777) % 2**32
SEED = 2**63 + 2**31 + 7
POLICIES = [
    "randaugment(n=2,m=9)",  # cutout that reaches over the edge
    "randaugment(n=3,m=5,space=ra_pytorch)",  # cutout as a rectangle
    "autoaugment-imagenet",  # sub-policies
    "fast-aa-cifar10",
    "trivialaugment-wide",  # random bins
    "rand-m9-mstd0.5-inc1",  # normal noise, several interpolations
    "rand-m7-mstd101-p1-n3",  # uniform noise
    "rand-m9-n4-mstd1-mmax8-inc1-tweights",  # without replacement
    "augmix",  # chains of drawn length
]


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("name", POLICIES)
def test_the_kernel_draws_the_bits_of_the_tensor_operations(name):
    policy = Policy.from_name(name)
    plain = policy.sample(SEED, INDEX, VIEWS, (31, 40), backend="torch")
    counted = count_launches(lambda: policy.sample(SEED, INDEX, VIEWS, (31, 40), backend="triton"))
    assert counted.by_name == {"launches": {"draw_kernel": 1}, "copies": {}, "reads": {}}
    _check_equal(plain, counted.result)


@pytest.mark.usefixtures("interpreter")
def test_one_view_for_all_every_box_and_blur():
    ops = ["cutout", "gaussian_blur", "rotate", "posterize"]
    for space in ("timm", "tf_tpu", "ra_pytorch", "severe"):
        known = [op for op in ops if Policy.random(m=3, space=space).space.knows(Op[op.upper()])]
        policy = Policy.random(n=2, m=3, space=space, ops=known, prob=0.8)
        plain = policy.sample(3, INDEX[:40], 2**32 - 1, (9, 33), backend="torch")
        _check_equal(plain, policy.sample(3, INDEX[:40], 2**32 - 1, (9, 33), backend="triton"))
    empty = Policy.from_name(POLICIES[0]).sample(3, INDEX[:0], 0, (8, 8), backend="triton")
    assert [len(layer) for layer in empty] == [0, 0]


def _check_equal(plain, drawn):
    assert len(plain) == len(drawn)
    for number, (a, b) in enumerate(zip(plain, drawn, strict=True)):
        for field in ("op", "arg", "interpolation", "box"):
            torch.testing.assert_close(
                getattr(b, field), getattr(a, field), rtol=0, atol=0, msg=lambda m, n=number, f=field: f"{n} {f}: {m}"
            )
        assert a.blurs == b.blurs


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("count", [1, 6, 8])
def test_words_have_the_bits_of_the_tensor_operations(count):
    for view in (VIEWS, 2**32 - 1):
        plain = rng.words_of(SEED, INDEX, view, (0, 17, 2**24 - 1), count)
        counted = count_launches(lambda v=view: rng.words_of(SEED, INDEX, v, (0, 17, 2**24 - 1), count, "triton"))
        assert torch.equal(counted.result, plain)
        assert counted.launches == 1


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize(
    ("options", "launches"),
    [({}, 5), ({"padding": 4, "hflip": 0.5}, 24)],  # one draw and two a layer; the crop is gathered by torch
)
def test_a_batch_keeps_its_budget(options, launches, monkeypatch):
    """Counted as on a GPU: nobody looks at values there."""
    run = BatchAugment("randaugment(n=2,m=9)", backend="triton", **options)
    images = torch.arange(4 * 3 * 64).view(4, 3, 8, 8).to(torch.uint8)
    plain = BatchAugment("randaugment(n=2,m=9)", backend="torch", **options)(images, INDEX[:4], 1)
    run(images, INDEX[:4], 0)
    monkeypatch.setattr(augment, "_may_look", lambda given: False)
    counted = count_launches(lambda: run(images, INDEX[:4], 1))
    assert counted.launches <= launches, counted
    assert (counted.copies, counted.reads) == (0, 0), counted
    assert torch.equal(counted.result, plain)


def test_the_kernel_asked_for_by_name_is_refused_where_it_cannot_run(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match="triton"):
        Policy.from_name(POLICIES[0]).sample(0, INDEX, 0, (8, 8), backend="triton")
    with pytest.raises(UserError, match="triton"):
        rng.words_of(0, INDEX, 0, (0,), 4, "triton")


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    "constants",
    [
        # A chain with normal noise; a launch turns numbers that are 1 into constants.
        {
            "NOISE": 2,
            "CUTOUT": None,
            "STYLE": 0,
            "CHAINS": 3,
            "weight_ptr": None,
            "view_ptr": None,
            "mixture_stream": 1,
        },
        # Operators without replacement, uniform noise, a cutout, a view for each picture.
        {"NOISE": 1, "CUTOUT": int(Op.CUTOUT), "STYLE": 2, "CHAINS": 0, "index_stride": 1, "view_stride": 1},
    ],
)
def test_compiles_without_fusion(constants):
    """A fused multiply-add, or a product with an inverse, would change bits."""
    kernel = kernels("kd_autoaug.ops", "draw_kernel").draw_kernel
    types = {"*threshold_ptr": "*fp64", "arg*_ptr": "*fp64", "level_ptr": "*fp64", "law_ptr": "*fp64"}
    types |= {"quantile_ptr": "*fp64", "numbers_ptr": "*fp64", "*_ptr": "*i64"}
    fixed = {"DRAWS": True, "LONG": True, "BLUR": int(Op.GAUSSIAN_BLUR), "LONGEST": 3, "BLOCK": 128, "ROWS": 16}
    compiled = compile_kernel(kernel, types, {**fixed, **constants}, warps=4, stages=None, fuse=False)
    assert compiled.stack == 0
    for instruction in ("div.rn.f64", "sqrt.rn.f64"):
        assert instruction in compiled.assembly
    assert not re.search(r"fma\.rn\.f64", compiled.assembly)
