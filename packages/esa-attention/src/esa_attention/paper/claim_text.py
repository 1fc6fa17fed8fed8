"""The second experiment: ordinary prediction past the trained context, and the recall of compressed scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effkit.papers import ClaimRun, Findings
from effkit.progress import part
from effkit.report import Table
from esa_attention.calibration.recall import per_layer_recall
from esa_attention.commands.methods import build_compressors
from esa_attention.commands.perplexity import curve
from esa_attention.commands.subject import Subject
from esa_attention.commands.texts import read_text
from esa_attention.compression.compressor import Compressors
from esa_attention.evaluation.models.byte_lm import save_byte_lm, unigram_nats
from esa_attention.evaluation.models.text import encode_bytes, read_split
from esa_attention.evaluation.tasks.ppl import bucket_edges, bucket_means, perplexity_table
from esa_attention.paper.claim_form import SHARES, Form, claim_subject
from esa_attention.plots import perplexity_curves, recall_curves

__all__ = ["read_on"]

MODEL = "byte-lm"  # the part that trains it, and its folder
MOST_DRIFT = 0.25  # nats per token past the context against inside it
NAMES = {"stock": "stock model", "sinks_local": "sinks + local", "esa": "ESA, closed form"}


def read_on(run: ClaimRun, form: Form, found: Findings) -> tuple[list[Table], list[Path], list[str]]:
    """Train a byte-level model, read past its context, and compare what compressed scores find.

    Args:
        run: The run; training, reading and recall are a part each.
        form: How long.
        found: Gets the judged figures.

    Returns:
        Tables, pictures and notes.
    """
    model = run.subfolder(MODEL)
    begin, end = SHARES["needles"], SHARES["needles"] + SHARES["training"]
    with part("training a byte-level model", begin, end):
        run.part(MODEL, _train, form, model)
    with part("reading past its context", end, (1 + end) / 2):
        reading = run.part("reading", _read, form, model)
    with part("recall", (1 + end) / 2, 1):
        recall = run.part("recall", _recall, form, model)
    reading["nats"] = {name: torch.tensor(nats) for name, nats in reading["nats"].items()}
    table, perplexity, note = _show_reading(reading, run, found)
    recall_table, recall_picture = _show_recall(recall, run, found)
    notes = [
        note,
        "SGD is the paper's recipe (learning rate, batch size and epochs) on as many tokens as the closed form; "
        "optimiser and initialisation are not given in the paper.",
    ]
    return [table, recall_table], [perplexity, recall_picture], notes


def _train(form: Form, folder: Path) -> None:
    subject, _ = claim_subject("ppl", "model=byte_lm", *form.training)
    save_byte_lm(subject.model, folder)


def _load(form: Form, folder: Path) -> tuple[Subject, dict[str, Any]]:
    return claim_subject("ppl", "model=byte_lm", *form.sizes, "compressor.num_tokens=8192", path=folder)


def _read(form: Form, folder: Path) -> dict[str, Any]:
    """Nats per byte by method, those of the stock model inside its context, and those of byte frequencies alone."""
    subject, group = _load(form, folder)
    ids, label = read_text(subject, form.text_length, "test")
    made: dict[str, Compressors] = {}
    nats: dict[str, list[float]] = {}
    for number, (method, name) in enumerate(NAMES.items()):
        with part(name, number / len(NAMES), (number + 1) / len(NAMES)):
            nats[name] = curve(subject, ids, method, group, made).tolist()
    return {
        "nats": nats,
        "inside": _inside(subject, ids),
        "unigram": unigram_nats(encode_bytes(read_split("train")), ids),
        "context": subject.shape.trained_context,
        "text": label,
        "words": " ".join(("model=byte_lm", *form.training, *form.sizes)),
    }


@torch.no_grad()
def _inside(subject: Subject, ids: Tensor) -> float:
    """Nats per token of the stock model with half to all of its context, on the same text cut into windows."""
    context = subject.shape.trained_context
    windows = ids[: len(ids) // context * context].view(-1, context)
    logits = subject.model(windows).logits[:, :-1]
    nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2).float(), windows[:, 1:], reduction="none")
    return float(nats[:, context // 2 :].mean())


def _show_reading(reading: dict[str, Any], run: ClaimRun, found: Findings) -> tuple[Table, Path, str]:
    """Judge what was read: table, picture, and a sentence on what selection is for."""
    curves, context, inside = reading["nats"], reading["context"], reading["inside"]
    seconds = run.parts[MODEL].seconds
    command = f"esa-attention ppl {reading['words']}"
    found.add(
        f"byte-level model, {NAMES['stock']}", f"nats per byte inside the {context} of training", inside,
        reading["unigram"], "at_most", source="what the frequencies of bytes give", seconds=seconds, command=command,
    )  # fmt: skip
    drift = {name: float(nats[context:].mean()) - inside for name, nats in curves.items()}
    metric = f"nats per byte past the {context} of training, above those inside"
    esa = drift[NAMES["esa"]]
    found.add("byte-level model, ESA", metric, esa, MOST_DRIFT, "at_most", seconds=seconds, command=command)
    for name in (NAMES["sinks_local"], NAMES["stock"]):
        found.add(f"byte-level model, {name}", "the same", drift[name], command=command)
    edges = bucket_edges(len(curves[NAMES["esa"]]), context)
    table = perplexity_table(curves, edges)
    table.note = (
        f"{reading['text']}, a part that was not trained on; {seconds:.0f} s of training. Inside its context the model "
        f"needs {inside:.3f} nats per byte (windows of {context}, second half)."
    )
    means = {name: bucket_means(nats, edges) for name, nats in curves.items()}
    picture = perplexity_curves(means, edges, run.folder / "perplexity.png", trained_context=context)
    ahead = drift[NAMES["sinks_local"]] - esa
    note = (
        f"On ordinary prediction ESA is {abs(ahead):.3f} nats per byte {'better' if ahead > 0 else 'worse'} than sinks "
        "+ local, which forgets everything else: the next byte depends on what is near. What selection is for, finding "
        "a fact far back, is what the first table shows."
    )
    return table, picture, note


def _recall(form: Form, folder: Path) -> dict[str, Any]:
    """Recall by calibration and layer, mean over windows of held-out text."""
    subject, group = _load(form, folder)
    context = subject.shape.trained_context
    made = {m: build_compressors(subject, group, m) for m in ("closed_form", "sgd_paper", "key_pca")}
    ids, _ = read_text(subject, form.windows * context, "test", seed=1)
    parts = [
        per_layer_recall(subject.model, window, made, k=context // 8, num_queries=context // 4)
        for window in ids.view(form.windows, context)
    ]
    layers = range(subject.shape.num_layers)
    return {
        "recall": {name: [sum(p[name][i] for p in parts) / len(parts) for i in layers] for name in made},
        "note": f"Rank {subject.rank} of {subject.shape.key_dim}, calibrated on {group['num_tokens']:,} other bytes.",
    }


def _show_recall(recall: dict[str, Any], run: ClaimRun, found: Findings) -> tuple[Table, Path]:
    recalls: dict[str, list[float]] = recall["recall"]
    mean = {name: 100 * sum(r) / len(r) for name, r in recalls.items()}
    for other in ("sgd_paper", "key_pca"):
        found.add(
            "recall of exact top-k, closed form", f"above {other}", mean["closed_form"] - mean[other], 0.0,
            unit="points", command="esa-attention recall model=byte_lm",
        )  # fmt: skip
    rows: list[list[Any]] = [
        [i, *(100 * r for r in layer)] for i, layer in enumerate(zip(*recalls.values(), strict=True))
    ]
    rows.append(["mean", *mean.values()])
    table = Table("Recall of exact top-k on held-out text, %", ["layer", *recalls], rows, recall["note"])
    return table, recall_curves(recalls, run.folder / "recall.png")
