"""The kernels compiled, on a GPU: the bytes of the CPU, without waiting for the device, also inside a CUDA graph."""

import numpy as np
import pytest
import torch

from effkit.testing.kernels import launched_on_gpu, needs_triton, waiting_is_an_error
from kd_autoaug.augmentation import rng as draws
from kd_autoaug.augmentation.augment import BatchAugment
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.ops import INTERPOLATIONS, Layer, Op, apply, triton_backend
from kd_autoaug.ops.matrix import affine_coefficients
from kd_autoaug.ops.operators import Kind, kind_of
from kd_autoaug.ops.parity import random_layer, sample_pictures
from kd_autoaug.ops.triton_backend import apply_layers

DEVICE = "cuda"
FILL, PATCH = (17, 128, 251), (3, 200, 99)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

pytestmark = [pytest.mark.gpu, needs_triton]


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    """Kernels run on the device, not in the interpreter."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def _every_operator(height, width, seed, each=2):
    """Pictures for every operator and interpolation, in no order, with random and special arguments."""
    rng = np.random.default_rng([seed, height, width])
    rows = []
    for op in Op:
        for how in INTERPOLATIONS.values() if kind_of(op) == Kind.AFFINE else (0,):
            layer = random_layer(op, each, height, width, rng)
            layer.interpolation[:] = how
            rows.append(layer)
    fields = ("op", "arg", "interpolation", "box")
    layer = Layer(*(torch.cat([getattr(row, field) for row in rows]) for field in fields))
    return layer[torch.from_numpy(rng.permutation(len(layer)))]


def _pictures(count, channels, height, width, seed):
    """Photographs, noise, one colour, two values, gradients."""
    kinds = list(sample_pictures(height, width, seed, channels).values())
    return torch.stack([kinds[n % len(kinds)] for n in range(count)])


def _assert_same(ours, theirs, layers):
    ours = ours.cpu()
    wrong = (ours != theirs).flatten(1).sum(1)
    for n in wrong.nonzero().flatten().tolist()[:1]:
        steps = [(Op(int(row.op[n])).name, float(row.arg[n]), int(row.interpolation[n])) for row in layers]
        pytest.fail(f"{int((wrong > 0).sum())} pictures differ; the first in {int(wrong[n])} bytes, after {steps}")


SIZES = [(1, 1), (1, 7), (3, 2), (2, 3), (7, 5), (17, 31), (32, 32), (33, 20), (3, 511), (224, 224)]


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_every_operator_gives_the_bytes_of_the_cpu(size, channels, backend):
    layers = [_every_operator(*size, seed=seed) for seed in (1, 2)]
    images = _pictures(len(layers[0]), channels, *size, seed=3)
    options = {"fill": FILL[:channels], "cutout_fill": PATCH[:channels]}
    theirs = apply(images, layers, backend="torch", **options)
    on_device = [layer.to(DEVICE) for layer in layers]
    _assert_same(apply(images.to(DEVICE), on_device, backend=backend, **options), theirs, layers)


def test_many_small_pictures():
    """More programs than one dimension of a grid may hold."""
    count = 70_000
    layer = Layer.of(torch.arange(count) % len(Op), torch.linspace(0, 2, count, dtype=torch.float64))
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 1, 4, 4), dtype=np.uint8))
    ours = apply(images.to(DEVICE), [layer.to(DEVICE)], fill=7, backend="triton")
    _assert_same(ours, apply(images, [layer], fill=7, backend="torch"), [layer])


def test_offsets_beyond_32_bits():
    """The last pictures lie more than 2^31 bytes behind the first."""
    batch, side = 720, 1000
    images = torch.zeros(batch, 3, side, side, dtype=torch.uint8, device=DEVICE)
    images[-1] = _pictures(1, 3, side, side, seed=4)[0].to(DEVICE)
    images[-2] = images[-1]
    ops = torch.full((batch,), int(Op.IDENTITY))
    ops[-2:] = torch.tensor([int(Op.EQUALIZE), int(Op.ROTATE)])
    layer = Layer.of(ops, torch.full((batch,), 30.0, dtype=torch.float64), 3)
    ours = apply(images, [layer.to(DEVICE)], fill=FILL, backend="triton")[-2:]
    _assert_same(ours, apply(images[-2:].cpu(), [layer[-2:]], fill=FILL, backend="torch"), [layer[-2:]])


def test_maps_have_the_bits_of_the_cpu():
    angles = torch.linspace(-1000.0, 1000.0, 20_001, dtype=torch.float64)
    layer = Layer.of(torch.full((len(angles),), int(Op.ROTATE)), angles)
    on_device = layer.to(DEVICE)
    scratch = triton_backend._Scratch(len(layer), 1, on_device.op.device)
    triton_backend._prepare(torch.zeros(len(layer), 1, 2, 3, dtype=torch.uint8, device=DEVICE), on_device, scratch)
    wanted = affine_coefficients(layer, 2, 3)
    assert torch.equal(scratch.numbers[:, :6].cpu(), wanted)
    assert torch.equal(affine_coefficients(on_device, 2, 3).cpu(), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_normalises_as_torch_does_here(dtype):
    layers = [_every_operator(32, 32, seed=seed).to(DEVICE) for seed in (5, 6)]
    images = _pictures(len(layers[0]), 3, 32, 32, seed=7).to(DEVICE)
    ours = apply_layers(images, layers, fill=FILL, cutout_fill=PATCH, normalize=(MEAN, STD, dtype))
    plain = apply_layers(images, layers, fill=FILL, cutout_fill=PATCH).float()
    mean, std = (torch.tensor(numbers, device=DEVICE).view(-1, 1, 1) for numbers in (MEAN, STD))
    assert ours.dtype == dtype
    assert torch.equal(ours, ((plain / 255 - mean) / std).to(dtype))


def test_does_not_wait_for_the_device():
    layers = [_every_operator(32, 32, seed=seed).to(DEVICE) for seed in (8, 9)]
    images = _pictures(len(layers[0]), 3, 32, 32, seed=10).to(DEVICE)
    options = {"fill": FILL, "cutout_fill": PATCH, "normalize": (MEAN, STD, torch.bfloat16)}
    wanted = apply_layers(images, layers, **options)
    with waiting_is_an_error():
        ours = apply_layers(images, layers, **options)
    assert torch.equal(ours, wanted)


def test_two_launches_a_layer():
    """Of the kernels' own operators: the blur is torch's, and many more."""
    layers = [_every_operator(32, 32, seed=seed) for seed in (11, 12)]
    layers = [layer[layer.op != int(Op.GAUSSIAN_BLUR)].to(DEVICE) for layer in layers]
    for layer in layers:
        layer.blurs = False
    images = _pictures(len(layers[0]), 3, 32, 32, seed=13).to(DEVICE)
    options = {"fill": FILL, "cutout_fill": PATCH, "normalize": (MEAN, STD, torch.bfloat16)}
    apply_layers(images, layers, **options)
    launched = launched_on_gpu(lambda: apply_layers(images, layers, **options))
    assert sum("prepare_kernel" in name for name in launched) == 2
    assert sum("apply_kernel" in name for name in launched) == 2
    assert len(launched) <= 8, launched


def test_graph_replays_with_other_pictures_and_operators():
    """Captured once; what is in the tensors at the time of the replay decides."""
    size, channels = (24, 40), 3
    layers = [_every_operator(*size, seed=seed) for seed in (14, 15)]
    static = [layer.to(DEVICE) for layer in layers]
    images = _pictures(len(layers[0]), channels, *size, seed=16)
    held = images.to(DEVICE)
    options = {"fill": FILL, "cutout_fill": PATCH}
    apply_layers(held, static, **options)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = apply_layers(held, static, **options)
    for seed in (14, 20, 30):
        layers = [_every_operator(*size, seed=seed + n) for n in range(2)]
        images = _pictures(len(images), channels, *size, seed=seed)
        held.copy_(images)
        for captured, layer in zip(static, layers, strict=True):
            for field in ("op", "arg", "interpolation", "box"):
                getattr(captured, field).copy_(getattr(layer, field))
        graph.replay()
        _assert_same(out, apply(images, layers, backend="torch", **options), layers)


@pytest.mark.parametrize(
    "policy",
    [
        "autoaugment-imagenet",
        "autoaugment-cifar10",
        "fast-aa-cifar10",
        "trivialaugment-wide",
        "rand-m9-mstd0.5-inc1",
        "randaugment(n=2,m=9,space=tf_tpu)",
    ],
)
@pytest.mark.parametrize("side", [32, 96])
def test_augmentation_is_that_of_the_cpu(policy, side):
    """Draws, crops, flips, policy and cutout: a cache made on one device serves the other."""
    augment = BatchAugment(Policy.from_name(policy), seed=3, padding=4, hflip=0.5, cutout=side // 2)
    images = _pictures(96, 3, side, side, seed=17)
    index, view = torch.arange(96) * 1_000_003, torch.arange(96) % 5
    theirs, layers = augment(images, index, view, return_layers=True)
    ours, _ = augment(images.to(DEVICE), index.to(DEVICE), view.to(DEVICE), return_layers=True)
    _assert_same(ours, theirs, layers)


def test_draws_have_the_bits_of_the_cpu():
    index, view = torch.arange(4096) * (1 << 40), torch.arange(4096) % 7
    words = draws.random_words(11, index, view, 2, 6)
    on_device = draws.random_words(11, index.to(DEVICE), view.to(DEVICE), 2, 6)
    assert torch.equal(on_device.cpu(), words)
    assert torch.equal(draws.normal(on_device).cpu(), draws.normal(words))
    assert torch.equal(draws.uniform(on_device).cpu(), draws.uniform(words))
