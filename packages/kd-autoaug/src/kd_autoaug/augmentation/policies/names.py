"""Policies by name: ``autoaugment-imagenet``, ``randaugment(n=2,m=9,space=tf_tpu)``, timm's strings."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from effkit.errors import UserError, choose
from kd_autoaug.augmentation.policies import autoaugment
from kd_autoaug.augmentation.policies.learnt import LISTS, learnt
from kd_autoaug.augmentation.policies.options import look_of
from kd_autoaug.augmentation.policies.spaces import space
from kd_autoaug.augmentation.policies.table import PolicyTable
from kd_autoaug.augmentation.policies.timm_strings import AUTOAUGMENT, is_timm, timm_table

__all__ = ["NAMES", "named_table"]

_LOOK = ("fill", "cutout_fill", "interpolation")
_RANDOM = ("n", "m", "space", "ops", "prob", "weights", "mstd", "mmax", "bins", "extrapolate", *_LOOK)


def _none(name: str, **options: Any) -> PolicyTable:
    return PolicyTable(name, (), space=space("torchvision"), **look_of(options))


def _paper(name: str, **options: Any) -> PolicyTable:
    rows = {"imagenet": autoaugment.IMAGENET, "cifar10": autoaugment.CIFAR10, "svhn": autoaugment.SVHN}
    return PolicyTable(name, rows[name.rpartition("-")[2]], space=space("torchvision", bins=10), **look_of(options))


def _fast(name: str, **options: Any) -> PolicyTable:
    return PolicyTable(name, learnt(name.rpartition("-")[2]), space=space("fast_aa"), **look_of(options))


def _trivial(name: str, **options: Any) -> PolicyTable:
    return PolicyTable.random(n=1, m=None, space="ta_wide", name=name, **options)


def _random(name: str, **options: Any) -> PolicyTable:
    if options.get("m") is None:
        raise UserError("m=None: randaugment needs a magnitude, such as randaugment(n=2,m=9,space=tf_tpu)")
    options.setdefault("space", "tf_tpu")
    return PolicyTable.random(name=name, **options)


def _timm(name: str, **options: Any) -> PolicyTable:
    return timm_table(name.removeprefix("timm-"), options.get("hparams"))


NAMES: dict[str, tuple[Callable[..., PolicyTable], tuple[str, ...]]] = {
    "none": (_none, _LOOK),
    "identity": (_none, _LOOK),
    **{f"autoaugment-{data}": (_paper, _LOOK) for data in ("imagenet", "cifar10", "svhn")},
    **{f"timm-{name}": (_timm, ("hparams",)) for name in AUTOAUGMENT},
    "randaugment": (_random, _RANDOM),
    "trivialaugment-wide": (_trivial, ("bins", *_LOOK)),
    **{f"fast-aa-{data}": (_fast, _LOOK) for data in LISTS},
}


def named_table(text: str, **options: Any) -> PolicyTable:
    """The table of a policy by name; see :meth:`~kd_autoaug.augmentation.policies.policy.Policy.from_name`.

    Args:
        text: A name of ``NAMES``, with options in brackets if wanted (``ops`` joined by plus signs), or a timm string.
        **options: The same options as keywords.

    Returns:
        The table, whose name is ``text``.

    Raises:
        UserError: If the name or an option is not known, is given twice, or a value is out of range.
    """
    if not isinstance(text, str):
        raise UserError(f"policy={text!r} must be the name of a policy, such as 'autoaugment-imagenet'")
    match = re.fullmatch(r"\s*([\w.\-]+)\s*(?:\((.*)\))?\s*", text)
    if match is None:
        raise UserError(f"policy={text!r} must read NAME or NAME(key=value,...), such as randaugment(n=2,m=9)")
    name, inside = match.groups()
    options = {**_options(text, inside or "", options), **options}
    if is_timm(name):
        _allow(name, options, ("hparams",))
        return timm_table(name, options.get("hparams"))
    key = name.lower().replace("_", "-")
    make, allowed = NAMES[choose("policy", key, [*NAMES, *AUTOAUGMENT, "rand-m9-mstd0.5-inc1"])]
    _allow(name, options, allowed)
    table = make(key, **options)
    table.name = text.strip()
    return table


def _allow(name: str, options: dict[str, Any], allowed: tuple[str, ...]) -> None:
    for option in options:
        choose(f"{name}: option", option, allowed)


def _options(text: str, inside: str, keywords: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in inside.split(","))):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals or not key or not value:
            raise UserError(f"policy={text!r}: {part!r} must read key=value")
        if key in out or key in keywords:
            raise UserError(f"policy={text!r}: {key}={value} is given twice")
        out[key] = _value(value)
    return out


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
