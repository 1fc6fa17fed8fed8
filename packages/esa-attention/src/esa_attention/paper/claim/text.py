"""The second experiment: ordinary prediction past the trained context, and the recall of compressed scores."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effkit.progress import part
from effkit.report import Table
from esa_attention.calibration.recall import per_layer_recall
from esa_attention.commands.methods import build_compressors
from esa_attention.commands.perplexity import curve
from esa_attention.commands.subject import Subject
from esa_attention.commands.texts import read_text
from esa_attention.compression.compressor import Compressors
from esa_attention.evaluation.tasks.ppl import bucket_edges, bucket_means, perplexity_table
from esa_attention.paper.claim.found import SHARES, Found, claim_subject
from esa_attention.plots import perplexity_curves, recall_curves

__all__ = ["TRAINING_STEPS", "read_on"]

TEXT_LENGTH = 8192
TRAINING_STEPS = 450
MOST_DRIFT = 0.25  # nats per token past the context against inside it


def read_on(found: Found, steps: int, run_dir: Path) -> tuple[list[Table], list[Path], list[str]]:
    """Train a byte-level model, read past its context, and compare what compressed scores find.

    Args:
        found: Gets the judged figures.
        steps: Of the training.
        run_dir: Gets the pictures.

    Returns:
        Tables, pictures and notes.
    """
    start = time.perf_counter()
    with part("training a byte-level model", SHARES["needles"], 1 - SHARES["text"]):
        subject, group = claim_subject(
            "ppl", "model=byte_lm", f"model.options.steps={steps}", "compressor.num_tokens=8192"
        )
    trained = time.perf_counter() - start
    context = subject.shape.trained_context
    ids, label = read_text(subject, TEXT_LENGTH, "test")
    made: dict[str, Compressors] = {}
    curves: dict[str, Tensor] = {}
    names = {"stock": "stock model", "sinks_local": "sinks + local", "esa": "ESA, closed form"}
    for number, (method, name) in enumerate(names.items()):
        share = SHARES["text"] / 4
        with part(name, 1 - SHARES["text"] + share * number, 1 - SHARES["text"] + share * (number + 1)):
            curves[name] = curve(subject, ids, method, group, made)
    edges = bucket_edges(len(ids) - 1, context)
    means = {name: bucket_means(nats, edges) for name, nats in curves.items()}
    inside = _inside(subject, ids)
    drift = {name: float(nats[context:].mean()) - inside for name, nats in curves.items()}
    found.add(
        "byte-level model, ESA",
        f"nats per byte past the {context} of training, above those inside",
        drift["ESA, closed form"],
        MOST_DRIFT,
        kind="at_most",
        seconds=trained,
        command="esa-attention ppl model=byte_lm",
    )
    for name in ("sinks + local", "stock model"):
        found.add(f"byte-level model, {name}", "the same", drift[name], None, source="shown beside it")
    recalls = _recalls(subject, group)
    mean = {name: 100 * sum(r) / len(r) for name, r in recalls.items()}
    for other in ("sgd_paper", "key_pca"):
        found.add(
            "recall of exact top-k, closed form",
            f"above {other}",
            mean["closed_form"] - mean[other],
            0.0,
            unit="points",
            command="esa-attention recall model=byte_lm",
        )
    table = perplexity_table(curves, edges)
    table.note = (
        f"{label}, a part that was not trained on; {steps} steps, {trained:.0f} s of training. Inside its context the "
        f"model needs {inside:.3f} nats per byte (windows of {context}, second half)."
    )
    recall_table = Table(
        "Recall of exact top-k on held-out text, %",
        ["layer", *recalls],
        [[i, *(100 * r[i] for r in recalls.values())] for i in range(subject.shape.num_layers)]
        + [["mean", *mean.values()]],
        f"Rank {subject.rank} of {subject.shape.key_dim}, calibrated on {group['num_tokens']:,} bytes of other text.",
    )
    figures = [
        perplexity_curves(means, edges, run_dir / "perplexity.png", trained_context=context),
        recall_curves(recalls, run_dir / "recall.png"),
    ]
    ahead = drift["sinks + local"] - drift["ESA, closed form"]
    notes = [
        "On ordinary prediction ESA "
        + (
            f"is {ahead:.3f} nats per byte better than sinks + local"
            if ahead > 0
            else f"is {-ahead:.3f} nats per byte worse than sinks + local"
        )
        + ", which forgets everything else: the next byte depends on what is near. What selection is for, finding a "
        "fact far back, is what the first table shows.",
        "SGD is the paper's recipe (learning rate, batch size and epochs) on as many tokens as the closed form; "
        "optimiser and initialisation are not given in the paper.",
    ]
    return [table, recall_table], figures, notes


@torch.no_grad()
def _inside(subject: Subject, ids: Tensor) -> float:
    """Nats per token of the stock model with half to all of its context, on the same text cut into windows."""
    context = subject.shape.trained_context
    windows = ids[: len(ids) // context * context].view(-1, context)
    logits = subject.model(windows).logits[:, :-1]
    nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2).float(), windows[:, 1:], reduction="none")
    return float(nats[:, context // 2 :].mean())


def _recalls(subject: Subject, group: dict[str, Any]) -> dict[str, list[float]]:
    context = subject.shape.trained_context
    made = {m: build_compressors(subject, group, m) for m in ("closed_form", "sgd_paper", "key_pca")}
    ids, _ = read_text(subject, 16 * context, "test", seed=1)
    # Several windows of the held-out text: one alone has few keys.
    parts = [
        per_layer_recall(subject.model, window, made, k=context // 8, num_queries=context // 4)
        for window in ids.view(16, context)
    ]
    layers = range(subject.shape.num_layers)
    return {name: [sum(p[name][i] for p in parts) / len(parts) for i in layers] for name in made}
