"""What a trained network brings along: its file, and how pictures were prepared when it learnt."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effkit.arguments import named_path
from effkit.data import Preprocessing
from effkit.errors import UserError
from effkit.lightning.optim import plain_options
from effkit.runs import Run, given_words, preprocessing_of
from kd_autoaug.training.data import ViewData

__all__ = ["expected_rows", "of_run", "show_as_trained", "teacher_options", "with_file"]

# Key of the data group -> field of the preprocessing.
_PICTURES = {"image_size": "size", **{k: k for k in ("crop_pct", "interpolation", "mean", "std")}}


def with_file(group: str, options: Any) -> dict[str, Any]:
    """The group ``model`` or ``teacher`` with the file that ``weights`` means: a file, or what a run folder ends with.

    Raises:
        UserError: If there is no such file.
    """
    options = dict(plain_options(options))
    weights = options.get("weights")
    if weights is None:
        return options
    path = Path(named_path(f"{group}.weights", weights)).expanduser()
    if path.is_dir():
        path = path / "model.safetensors"
        if not path.is_file():
            raise UserError(f"{group}.weights={str(weights)!r} is no finished run: it has no model.safetensors")
    elif not path.is_file():
        raise UserError(f"{group}.weights={str(weights)!r} does not exist: give a file of weights or a run folder")
    return {**options, "weights": str(path)}


def _known(options: Mapping[str, Any]) -> Preprocessing | None:
    return preprocessing_of(options["weights"]) if options.get("weights") else None


def show_as_trained(cfg: Mapping[str, Any], data: ViewData, *, fixed: bool = False) -> None:
    """Show pictures as the run behind ``model.weights`` did; a file that does not say leaves the data as it is.

    Args:
        cfg: Composed config.
        data: The pictures.
        fixed: Nothing is learnt, so the run has the last word: keys of ``data`` on the command line that say something
            about pictures are refused, and other classes are too. Else they win, and classes may be others.

    Raises:
        UserError: If the network was trained on other classes, or a key is refused.
    """
    options = with_file("model", cfg.get("model") or {})
    known = _known(options)
    if known is None:
        return
    given = [k for k in (*_PICTURES, "in_chans") if f"data.{k}" in given_words()]
    if fixed and given:
        where = f"run={cfg['run']!r}" if cfg.get("run") else f"model.weights={cfg['model']['weights']!r}"
        raise UserError(f"{where} says what data.{given[0]} is: leave data.{given[0]}=... out")
    if not fixed:
        if known.channels != data.in_chans:
            return
        own = {field: getattr(data.preprocessing, field) for key, field in _PICTURES.items() if key in given}
        known = dataclasses.replace(known, class_names=(), **own)
    data.use(known)


def teacher_options(cfg: Mapping[str, Any], data: ViewData) -> tuple[dict[str, Any], Preprocessing | None]:
    """The group ``teacher`` with the normalisation and size of the run behind its weights, where it names none.

    Returns:
        The group, and what the run says.

    Raises:
        UserError: If there is no such file.
    """
    options = with_file("teacher", cfg.get("teacher") or {})
    known = _known(options)
    if known is not None:
        size = None if known.size == data.preprocessing.size else known.size[0]
        said = {"mean": list(known.mean), "std": list(known.std), "size": size}
        options |= {key: value for key, value in said.items() if options.get(key) is None}
    return options, known


def of_run(cfg: Any) -> dict[str, Any]:
    """A config with the network and the data of ``run=RUN`` in place of its groups; without it, as it is.

    Raises:
        UserError: If it is no run of this package, or words given beside it say again what the run says.
    """
    options = plain_options(cfg)
    if options.get("run") is None:
        return options
    run, given = Run.open(named_path("run", options["run"]), package="kd_autoaug"), given_words()
    run.refuse(given)
    changed = {k.removeprefix("data."): v for k, v in given.items() if k.startswith("data.")}
    data = options["data"] if "data" in given else {**run.config["data"], **changed}
    model = {**run.config["model"], "weights": str(run.weights())}
    return {**options, "model": model, "data": data}


def expected_rows(cfg: Mapping[str, Any]) -> tuple[list[list[Any]], list[str]]:
    """The published figure that a config names, as a row beside ours, and what is known of its recipe, as lines."""
    expected = cfg.get("expected") or {}
    top1, evidence = expected.get("top1"), expected.get("evidence") or []
    if isinstance(evidence, str) or not isinstance(evidence, Sequence):
        raise UserError(f"expected.evidence={evidence!r} must be a list of lines")
    source = expected.get("source") or "source not given"
    return [] if top1 is None else [[f"published top1, {source}", top1]], [str(line) for line in evidence]
