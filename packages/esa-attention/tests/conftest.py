"""What tests of kernels share: the mode they run in, the device, the compiler."""

import pytest
import torch

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


@pytest.fixture
def tiny():
    """Make a small model of a family, with weights large enough for tokens to differ."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    def make(family="llama", dtype=torch.float64, seed=0, auto=AutoModelForCausalLM, **changes):
        sizes = {
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "vocab_size": 130,
            "max_position_embeddings": 128,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": None,
        }
        torch.manual_seed(seed)
        model = auto.from_config(CONFIG_MAPPING[family](**{**sizes, **changes})).eval().to(dtype)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.mul_(6)
        return model

    return make


@pytest.fixture
def tokens():
    """Rows of tokens, none twice in a row of up to 120: equal keys would leave choices to rounding."""

    def make(batch=1, length=40, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return torch.stack([torch.randperm(128, generator=generator)[:length] + 2 for _ in range(batch)])

    return make
