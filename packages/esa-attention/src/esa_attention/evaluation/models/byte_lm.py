"""A byte-level Llama of 0.76 million parameters, trained in about a minute on the text that ships with Python.

It is real enough to be broken by positions it has never seen: trained on 256 bytes at a time, it lets anyone measure on
a laptop what full attention, a window and ESA do beyond a context.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from effkit.checkpoints import read_safetensors, write_safetensors
from effkit.errors import UserError
from effkit.progress import report_progress
from effkit.report import write_text
from esa_attention.evaluation.models.blank import blank_model
from esa_attention.evaluation.models.text import encode_bytes, read_split

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM

__all__ = [
    "ByteLMRun",
    "byte_lm_config",
    "load_byte_lm",
    "save_byte_lm",
    "train_byte_lm",
    "unigram_nats",
    "window_nats",
]

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_WARMUP_STEPS = 40
_LAST_RATE = 0.03  # of the peak learning rate


@dataclass
class ByteLMRun:
    """What training left behind.

    Attributes:
        model: In evaluation mode.
        steps: Steps taken.
        seconds: Time taken.
        test_nats: Cross-entropy per byte within the context on unseen documents.
        unigram_nats: That of the training text's byte frequencies on the same documents: what knowing no context gives.
        curve: ``(step, seconds, training loss)`` now and then.
    """

    model: LlamaForCausalLM
    steps: int = 0
    seconds: float = 0.0
    test_nats: float = math.nan
    unigram_nats: float = math.nan
    curve: list[tuple[int, float, float]] = field(default_factory=list)


def byte_lm_config(context: int = 256) -> LlamaConfig:
    """4 layers of width 128, 4 query heads on 2 key-value heads, tied embeddings, 256 tokens, RoPE base 10,000.

    Args:
        context: Bytes of a training sequence.
    """
    from transformers import LlamaConfig

    if context < 2:
        raise UserError(f"context must be at least 2, got {context}")
    return LlamaConfig(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )


def train_byte_lm(
    steps: int | None = None,
    seconds: float | None = None,
    *,
    seed: int = 0,
    context: int = 256,
    batch_size: int = 8,
    lr: float = 2e-3,
    weight_decay: float = 0.1,
) -> ByteLMRun:
    """Train on the training side of the topics with AdamW, a short warm-up and a cosine to 3 % of the rate.

    Args:
        steps: Budget in steps; reproducible on one machine. 700 if no budget is given.
        seconds: Budget in time instead; how far it gets depends on the machine, and the rate follows the clock.
        seed: Of weights and batches.
        context: Bytes of a sequence.
        batch_size: Sequences of a step.
        lr: Peak learning rate.
        weight_decay: On matrices only.

    Returns:
        The model with its losses.

    Raises:
        UserError: If both budgets are given or a value is out of range.
    """
    from transformers import LlamaForCausalLM

    if steps is not None and seconds is not None:
        raise UserError(f"give steps or seconds, got both: {steps} and {seconds}")
    for name, value in (("steps", steps), ("seconds", seconds), ("batch_size", batch_size), ("lr", lr)):
        if value is not None and not value > 0:
            raise UserError(f"{name} must be above 0, got {value}")
    steps = 700 if steps is None and seconds is None else steps
    text, test = encode_bytes(read_split("train")), encode_bytes(read_split("test"))
    run = ByteLMRun(blank_model(LlamaForCausalLM, byte_lm_config(context), seed=seed).train())
    run.unigram_nats = unigram_nats(text, test)
    optimizer = _optimizer(run.model, lr, weight_decay)
    generator = torch.Generator().manual_seed(seed)
    started = time.perf_counter()
    while (done := _done(run, steps, seconds)) < 1.0:
        rate = lr * min(1.0, (run.steps + 1) / _WARMUP_STEPS) * (_LAST_RATE + (1 - _LAST_RATE) * _cosine(done))
        for group in optimizer.param_groups:
            group["lr"] = rate
        first = torch.randint(0, len(text) - context, (batch_size, 1), generator=generator)
        loss = _train_step(run.model, optimizer, text[first + torch.arange(context + 1)])
        run.steps += 1
        run.seconds = time.perf_counter() - started
        if run.steps % 20 == 0 or run.steps == steps:
            run.curve.append((run.steps, run.seconds, loss.item()))
            report_progress(f"step {run.steps}, {loss.item():.3f} nats per byte", min(1.0, _done(run, steps, seconds)))
    run.model.eval()
    run.test_nats = window_nats(run.model, test)
    return run


def _done(run: ByteLMRun, steps: int | None, seconds: float | None) -> float:
    return run.steps / steps if steps is not None else run.seconds / (seconds or 1.0)


def _cosine(done: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * done))


def _optimizer(model: LlamaForCausalLM, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)


def _train_step(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, batch: Tensor) -> Tensor:
    logits = model(batch[:, :-1], use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


def unigram_nats(train: Tensor, test: Tensor) -> float:
    """Cross-entropy per byte of ``test`` under the byte frequencies of ``train`` (plus one each)."""
    counts = torch.bincount(train, minlength=256).double() + 1.0
    return float(-(counts / counts.sum()).log()[test].mean())


@torch.no_grad()
def window_nats(model: LlamaForCausalLM, ids: Tensor, num_windows: int = 80) -> float:
    """Cross-entropy per byte in separate windows of the model's context, from the front of ``ids``.

    Args:
        model: In evaluation mode.
        ids: ``(n,)`` byte ids.
        num_windows: At most so many windows.

    Raises:
        UserError: If the text is shorter than one window.
    """
    context = model.config.max_position_embeddings
    windows = ids.unfold(0, context + 1, context)[:num_windows] if len(ids) > context else ids[:0]
    if len(windows) == 0:
        raise UserError(f"ids must hold more than {context} bytes, got {len(ids)}")
    sums = 0.0
    for part in windows.split(16):
        logits = model(part[:, :-1], use_cache=False).logits
        sums += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum"))
    return sums / (len(windows) * context)


def save_byte_lm(model: LlamaForCausalLM, folder: str | os.PathLike[str]) -> Path:
    """Write configuration and weights (safetensors) as a folder that ``from_pretrained`` reads too.

    Args:
        model: The trained model.
        folder: Made if it is missing.

    Returns:
        The folder.
    """
    folder = Path(folder)
    state = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    write_safetensors(folder / WEIGHTS, state)
    write_text(folder / CONFIG, json.dumps({**model.config.to_dict(), "architectures": ["LlamaForCausalLM"]}, indent=2))
    return folder


def load_byte_lm(folder: str | os.PathLike[str]) -> LlamaForCausalLM:
    """Read what :func:`save_byte_lm` wrote.

    Args:
        folder: The folder.

    Returns:
        The model in evaluation mode, in float32 on the CPU.

    Raises:
        UserError: If the folder holds no such model.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"path={os.fspath(folder)!r} holds no byte_lm: {name} is missing")
    try:
        config = LlamaConfig(**json.loads((folder / CONFIG).read_text()))
        state, _ = read_safetensors(folder / WEIGHTS)
        model = blank_model(LlamaForCausalLM, config)
        # Tied to the embedding, so it is not in the file.
        model.load_state_dict({**state, "lm_head.weight": state["model.embed_tokens.weight"]}, strict=True)
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"path={os.fspath(folder)!r} holds no byte_lm: {str(error).splitlines()[0]}") from error
    return model
