"""What every benchmark offers to who runs it, and how its files are found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from effkit.errors import UserError, choose
from esa_attention.evaluation.benchmarks.codec import Codec
from esa_attention.evaluation.benchmarks.prompts import PLAIN, Template, find_file, load_templates
from esa_attention.evaluation.benchmarks.record import Record

__all__ = ["Benchmark", "choose_datasets", "templates_of"]

Means = Mapping[str, float]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark in a folder of the user.

    Args:
        name: Its name.
        metrics: Name of the metric by data set, for the data sets that are asked for, in order.
        prompts: What the prompts are, for people.
        read: Records of a data set, in order. Without a codec what can be read without a model: none where contexts
            are composed of its tokens.
        overall: Name and value of the figures over all data sets, from their means.
    """

    name: str
    metrics: Mapping[str, str]
    prompts: str
    read: Callable[[str, Codec | None], Iterator[Record]]
    overall: Callable[[Means], dict[str, float | None]]


def choose_datasets(
    folder: Path, asked: Sequence[str] | None, known: Sequence[str], places: Callable[[str], Sequence[str]]
) -> dict[str, Path]:
    """Files by data set: those asked for, or all that are there.

    Args:
        folder: The user's.
        asked: Names; ``None`` for all that are there.
        known: Every name there is.
        places: Where in the folder a data set's file may be.

    Raises:
        UserError: If a name is unknown, given twice, or its file is missing; or if there is none at all.
    """
    if not folder.is_dir():
        raise UserError(f"task.folder={str(folder)!r} " + ("is no folder" if folder.exists() else "does not exist"))
    if asked is not None:
        if not asked or len(set(asked)) != len(asked):
            raise UserError(f"task.datasets={list(asked)} must name data sets, each once")
        for name in asked:
            choose("task.datasets", name, known)
    found = {name: find_file(folder, places(name)) for name in (known if asked is None else asked)}
    missing = [name for name, path in found.items() if path is None]
    if asked is not None and missing:
        raise UserError(f"task.folder={str(folder)!r} holds no {' or '.join(places(missing[0]))}")
    there = {name: path for name, path in found.items() if path is not None}
    if not there:
        raise UserError(
            f"task.folder={str(folder)!r} holds none of the data sets: no {places(known[0])[0]} or the like"
        )
    return there


def templates_of(
    folder: Path,
    prompts: str | None,
    datasets: Collection[str],
    names: Collection[str],
    *,
    own: Sequence[str],
    plain: Callable[[str], str],
    source: str,
    prompt_set: str | None = None,
) -> tuple[dict[str, Template], str]:
    """Templates of data sets, and what they are, for people.

    Args:
        folder: The user's.
        prompts: A file; ``plain`` for ours; ``None`` for the benchmark's own, found in the folder.
        datasets: Which are needed.
        names: What a template may name.
        own: Where the benchmark's own file may be, from the folder.
        plain: Our template of a data set.
        source: What the benchmark's own file is called where it is published, for messages.
        prompt_set: Which dictionary of a Python file.

    Raises:
        UserError: If there is no file, or one of the data sets has no template in it, or no good one.
    """
    if prompts == PLAIN:
        where = "prompts=plain"
        texts = {name: plain(name) for name in datasets}
    else:
        path = find_file(folder, own) if prompts is None else Path(prompts).expanduser()
        if path is None or not path.is_file():
            said = (
                f"task.folder={str(folder)!r} holds no {own[0]}"
                if path is None
                else f"task.prompts={prompts!r} is no file"
            )
            raise UserError(
                f"{said}: give task.prompts=FILE ({source}), or task.prompts=plain for bare prompts of ours, whose "
                "figures cannot be compared with published ones"
            )
        texts = load_templates(path, prompt_set)
        where = f"{path.name}, {prompt_set}" if path.suffix == ".py" else path.name
    found = {}
    for name in datasets:
        if name not in texts:
            raise UserError(f"{where} has no template for {name}; it has {', '.join(sorted(texts))}")
        found[name] = Template.parse(texts[name], names, f"{where}: the template of {name}")
    return found, "bare prompts of ours, not to be compared with published figures" if prompts == PLAIN else where
