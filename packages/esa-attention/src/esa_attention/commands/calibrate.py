"""The command ``calibrate``: find the maps of every layer, save them, and say what they lose."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from effkit.cli import run_dir
from effkit.errors import UserError
from effkit.executors import Choice
from effkit.outputs import check_output_file
from effkit.report import Report, Table
from esa_attention.calibration.spectrum import rank_for_tail
from esa_attention.commands.build import build_subject, in_keys, plain
from esa_attention.commands.methods import build_compressors, check_group
from esa_attention.commands.subject import Subject
from esa_attention.compression.compressor import Compressors, save_compressors
from esa_attention.plots import spectrum_curves

__all__ = ["calibration_report", "run"]


@in_keys
def run(cfg: Any) -> Report:
    """Run the command with a composed config."""
    choice = Choice.from_config(plain(cfg), run_dir() / "jobs")
    out = run_dir() / "compressors.safetensors" if cfg.out is None else plain(cfg.out)
    check_output_file("out", out, (".safetensors",))
    group = plain(cfg.compressor)
    check_group(group)
    _refuse_finished(group)
    return calibration_report(build_subject(cfg), group, out, run_dir(), choice)


def calibration_report(
    subject: Subject,
    group: dict[str, Any],
    out: str | os.PathLike[str],
    folder: Path,
    choice: Choice | None = None,
) -> Report:
    """Calibrate, save, and say what the spectrum loses at the chosen rank.

    Args:
        subject: The model.
        group: Config group ``compressor``.
        out: File to write.
        folder: Gets the picture of the spectrum and, until the file is written, what an interrupted run continues from.
        choice: Where the text is read.

    Raises:
        UserError: If a value does not fit.
    """
    _refuse_finished(group)
    out = check_output_file("out", out, (".safetensors",))
    keeps_moments = group["method"] in ("closed_form", "key_pca")
    state = folder / "moments.safetensors" if keeps_moments else None
    start = time.perf_counter()
    made = build_compressors(subject, group, state_path=state, choice=choice)
    seconds = time.perf_counter() - start
    path = save_compressors(made, out)
    if state is not None:
        state.unlink(missing_ok=True)  # two large matrices a layer, of no use once the maps are there
    rows = [[i, c.rank, c.key_dim, c.num_parameters(), *_kept(c)] for i, c in enumerate(made)]
    what = "keys'" if made.method == "key_pca" else "scores'"  # whose spectrum it is
    table = Table(
        f"{made.method} of {subject.name}",
        ["layer", "rank", "of", "parameters", f"kept of the {what} variance, %", "rank for 99 %"],
        rows,
        f"Far position {made.far_position}, {_texts(made)}, {seconds:.1f} s.",
    )
    files = [path]
    spectra = [c.spectrum for c in made if c.spectrum is not None]
    if len(spectra) == len(made) and all(float(s[0]) > 0 for s in spectra):
        remark = f"{subject.name}, far position {made.far_position}, {made.num_tokens:,} tokens"
        values = [(s / s[0]).tolist() for s in spectra]
        files.append(spectrum_curves(values, made.ranks, folder / "spectrum.png", remark=remark))
    data = {
        "method": made.method,
        "ranks": made.ranks,
        "seconds": seconds,
        "parameters": made.num_parameters(),
        "texts": [dict(text) for text in made.texts],
    }
    return Report(f"esa-attention calibrate, {subject.name}", [table], data=data, files=files)


def _refuse_finished(group: dict[str, Any]) -> None:
    if group["path"] is not None:
        raise UserError("calibrate makes compressors; compressor.path names finished ones, leave it out")


def _texts(made: Compressors) -> str:
    """What was read, text by text."""
    if not made.texts:
        return "no text"
    return "calibrated on " + " and ".join(f"{text['tokens']:,} tokens of {text['name']}" for text in made.texts)


def _kept(compressor: Any) -> list[Any]:
    """Share of the scores' variance kept at this rank, and the rank that would keep 99 %."""
    s = compressor.spectrum
    if s is None:
        return [None, None]
    squares = s.double().square()
    total = float(squares.sum())
    share = 100 * float(squares[: compressor.rank].sum()) / total if total else 100.0
    return [share, rank_for_tail(s, 0.01)]
