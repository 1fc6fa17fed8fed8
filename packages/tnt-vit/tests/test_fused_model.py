"""The whole network on the fused kernel: through triton's interpreter on a CPU, and on hardware."""

import os
import subprocess
import sys

import pytest
import torch

import tnt_vit

SCRIPT = """
import torch
from tnt_vit import TNT, optimize_for_inference
torch.manual_seed(0)
model = TNT(img_size=16, patch_size=8, embed_dim=48, inner_dim=12, depth=2, num_heads=3, inner_num_heads=2,
            num_classes=5, inner_stride=2, drop_path_rate=0.5, tnt_blocks=(1, 2)).double()
x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
model.eval()
want = model(x)
model.backend = "fused"
assert (model(x) - want).abs().max() < 1e-10, "module"
for order in ("layers", "words_first"):
    assert (optimize_for_inference(model, order=order)(x) - want).abs().max() < 1e-10, order
# Gradients, and stochastic depth: the same factors on both branches give the same words.
grads = []
for backend in ("fused", "torch"):
    model.backend = backend
    model.zero_grad()
    model(x).square().sum().backward()
    grads.append([p.grad.clone() for p in model.parameters()])
assert max((a - b).abs().max() for a, b in zip(*grads)) < 1e-9, "gradients"
block, words = model.blocks[1].train(), model.embed(x)[0]
torch.manual_seed(3)
out = block.forward_words(words, fused="triton")
torch.manual_seed(3)
scale = block._branch_scale(words)
plain = words + scale[0][:, None, None] * block.attn_in(block.norm_in(words), explicit=True)
plain = plain + scale[1][:, None, None] * block.mlp_in(block.norm_mlp_in(plain))
assert (out - plain).abs().max() < 1e-10, "stochastic depth"
assert 0 < (scale == 0).sum() < scale.numel()
"""


@pytest.mark.slow
def test_network_through_the_interpreter():
    """In a process of its own, since triton reads the variable when a kernel is decorated."""
    pytest.importorskip("triton", reason="triton is not installed (macOS, Windows)")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.parametrize("order", ["layers", "words_first"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["tnt_ti", "tnt_s", "tnt_b", "tnt_s_legacy", "tnt_s3"])
def test_gpu_network_is_as_close_to_float64_as_torch_is(name, dtype, order):
    from effkit.testing import assert_close_to_reference

    torch.manual_seed(0)
    model = tnt_vit.create_model(name).cuda().eval()
    x = torch.randn(3, 3, 224, 224, device="cuda")
    with torch.no_grad():
        exact = model.double()(x.double())
        model = model.to(dtype)
        model.backend = "torch"
        same = model(x.to(dtype))
        model.backend = "fused"
        assert_close_to_reference(model(x.to(dtype)), same, exact, eps=1e-5)
        fast = tnt_vit.optimize_for_inference(model, order=order)
        assert_close_to_reference(fast(x.to(dtype)), same, exact, eps=1e-5)


@pytest.mark.gpu
def test_gpu_large_batch_passes_the_grid_limit():
    model = tnt_vit.create_model("tnt_ti", depth=1).cuda().bfloat16().eval()
    x = torch.randn(400, 3, 224, 224, device="cuda", dtype=torch.bfloat16)
    with torch.inference_mode():
        whole, part = model(x), model(x[-2:])
    assert torch.isfinite(whole).all()
    torch.testing.assert_close(whole[-2:], part, rtol=2e-2, atol=2e-2)


@pytest.mark.gpu
def test_gpu_training_step_and_compile():
    model = tnt_vit.create_model("tnt_ti", depth=2, backend="fused", drop_path_rate=0.1).cuda().train()
    x = torch.randn(4, 3, 224, 224, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        torch.compile(model, fullgraph=True)(x).float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
