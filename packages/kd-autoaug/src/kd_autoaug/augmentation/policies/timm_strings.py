"""timm's configuration strings, such as ``rand-m9-mstd0.5-inc1`` and ``original-mstd0.5``, by timm 1.0.31's rules.

Where timm passes over a mistake in silence (a key without a number or given twice, an unknown transform set) this
parser refuses it. ``3a`` is DeiT III's three-augment. RandAugment's transform sets ``t3a`` and ``t3aw`` are refused,
as is AugMix in its blended mode (``b1``, whose results timm itself calls untested) and with another ``alpha`` than 1.
"""

from __future__ import annotations

import dataclasses
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

from effkit.errors import UserError, choose
from kd_autoaug.augmentation.policies import autoaugment
from kd_autoaug.augmentation.policies.entries import Entry
from kd_autoaug.augmentation.policies.law import NO_SIDE, Law
from kd_autoaug.augmentation.policies.mixture import Mixture
from kd_autoaug.augmentation.policies.options import Noise, look_of
from kd_autoaug.augmentation.policies.space import LawSpace
from kd_autoaug.augmentation.policies.spaces import space
from kd_autoaug.augmentation.policies.table import PolicyTable
from kd_autoaug.ops.operators import Op

__all__ = ["AUTOAUGMENT", "WEIGHTS", "is_timm", "timm_table"]

AUTOAUGMENT = {
    "original": (autoaugment.IMAGENET, "timm_original"),
    "originalr": (autoaugment.IMAGENET, "timm_research"),
    "v0": (autoaugment.V0, "timm"),
    "v0r": (autoaugment.V0, "timm_research"),
}
# The set "weights" of the increasing operators; drawn without replacement.
WEIGHTS: dict[Op, float] = {
    Op.ROTATE: 3,
    Op.SHEAR_X: 2,
    Op.SHEAR_Y: 2,
    Op.TRANSLATE_X: 1,
    Op.TRANSLATE_Y: 1,
    Op.COLOR: 0.25,
    Op.SHARPNESS: 0.25,
    Op.AUTOCONTRAST: 0.25,
    Op.SOLARIZE: 0.05,
    Op.SOLARIZE_ADD: 0.05,
    Op.CONTRAST: 0.05,
    Op.BRIGHTNESS: 0.05,
    Op.EQUALIZE: 0.05,
    Op.POSTERIZE: 0.05,
    Op.INVERT: 0.05,
}
# DeiT III's three-augment: one of solarize, grey and a blur of random width, each with a probability of a third.
THREE_AUGMENT = (
    (Entry(Op.SOLARIZE, 1.0, 5.0),),
    (Entry(Op.COLOR, 1.0, 10.0),),
    (Entry(Op.GAUSSIAN_BLUR, 1.0, 10.0),),
)
_AUGMIX = (
    Op.AUTOCONTRAST,
    Op.COLOR,
    Op.CONTRAST,
    Op.BRIGHTNESS,
    Op.SHARPNESS,
    Op.EQUALIZE,
    Op.ROTATE,
    Op.POSTERIZE,
    Op.SOLARIZE,
    Op.SHEAR_X,
    Op.SHEAR_Y,
    Op.TRANSLATE_X,
    Op.TRANSLATE_Y,
)
_THREE_SPACE = LawSpace(
    name="timm_3a",
    source="timm 1.0.31 timm/data/auto_augment.py",
    operators=(Op.SOLARIZE, Op.COLOR, Op.GAUSSIAN_BLUR),
    maximum=10.0,
    fill=128,
    laws={
        Op.SOLARIZE: Law(256.0, truncate="scaled", cap=256.0),
        Op.COLOR: Law(0.5, offset=0.5, direction=-1.0, lowest=0.0, highest=0.5),  # timm's Desaturate: from half to grey
        Op.GAUSSIAN_BLUR: Law(2.0),  # timm's GaussianBlurRand
    },
)
_LIMIT = 10.0  # of levels, unless mmax lifts it
_NUMBERS: dict[str, dict[str, type]] = {
    "augmix": {"m": int, "w": int, "d": int, "mstd": float, "a": float, "b": int},
    "rand": {"m": int, "n": int, "p": float, "mstd": float, "mmax": int, "inc": int},
}
_MOST_OPERATORS = 64  # of a picture
_HPARAMS = ("translate_const", "translate_pct", "img_mean", "interpolation", "magnitude_std", "magnitude_max")


def is_timm(text: str) -> bool:
    """Whether a text is one of timm's strings, by its first word."""
    return text.split("-")[0] in {"rand", "augmix", "3a", *AUTOAUGMENT}


def timm_table(text: str, hparams: Mapping[str, Any] | None = None) -> PolicyTable:
    """The policy of a timm string.

    Args:
        text: Such as ``"rand-m9-n3-p0.5-mstd0.5-mmax10-inc1"``, ``"rand-m9-tweights"``, ``"original-mstd0.5"``,
            ``"v0r"``, ``"3a"``, ``"augmix-m5-w4-d2"``.
        hparams: timm's: ``img_mean`` (fill), ``interpolation`` (Pillow's number or several), ``translate_pct``,
            ``magnitude_std``, ``magnitude_max``; the last two win over the string. ``translate_const`` is accepted and
            changes nothing, as in timm, whose policies translate relative to the side.

    Returns:
        Its table; a level above timm's bound is clamped as timm does, with a warning.

    Raises:
        UserError: If the string has a part timm does not know, a number is missing or out of range, or the policy needs
            what is no operator here.
    """
    head, *sections = text.split("-")
    choose("policy", head, ["rand", "3a", "augmix", *AUTOAUGMENT])
    given = {} if hparams is None else dict(hparams)
    for key in given:
        choose("hparams", key, _HPARAMS)
    values = _sections(text, head, sections)
    std = float(given.get("magnitude_std", values.get("mstd", 0.0)))
    if head == "rand" and "magnitude_std" not in given and std > 100:
        std = float("inf")
    upper = float(given.get("magnitude_max", values.get("mmax", 0)) or _LIMIT)
    if std < 0 or upper < 0:
        raise UserError(f"hparams={given!r}: magnitude_std and magnitude_max must not be negative")
    look = _look_of_timm(given)
    noise = Noise(std, upper) if std > 0 else None
    if head == "augmix":
        return _augmix(text, values, given, look)
    if head == "3a":
        return PolicyTable(text, THREE_AUGMENT, space=_translated(_THREE_SPACE, given), noise=noise, **look)
    if head != "rand":
        rows, name = AUTOAUGMENT[head]
        return PolicyTable(text, rows, space=_space(name, given), noise=noise, **look)
    level = float(values.get("m", _LIMIT))
    if level > upper and noise is None:
        warnings.warn(f"{text}: timm clamps m={level:g} to {upper:g}; add mmax{level:g} to allow it", stacklevel=3)
        level = upper
    weighted = values.get("t") == "weights"
    ops = list(WEIGHTS) if weighted else None
    found = _space("timm_increasing" if weighted or values.get("inc") else "timm", given)
    return PolicyTable.random(
        n=values.get("n", 2),
        m=level,
        space=found,
        ops=ops,
        prob=values.get("p", 0.5),
        weights=list(WEIGHTS.values()) if weighted else None,
        extrapolate=True,
        mstd=std,
        mmax=upper,
        name=text,
        **look,
    )


def _augmix(text: str, values: Mapping[str, Any], given: Mapping[str, Any], look: Mapping[str, Any]) -> PolicyTable:
    """Chains of timm's operators for AugMix; levels are uniform from 0 to m unless their deviation is given."""
    if values.get("a", 1.0) != 1.0 or values.get("b", 0):
        raise UserError(f"policy={text!r}: only a1 and b0 are here, a flat weighting of whole chains and one blend")
    level, width, depth = values.get("m", 3), values.get("w", 3), max(0, values.get("d", 0))
    mixture = Mixture(width, depth)
    if not 0 <= level <= _LIMIT or width < 1 or width * mixture.longest > _MOST_OPERATORS:
        raise UserError(
            f"policy={text!r}: m must be 0 to {_LIMIT:g}, w at least 1, and chains of {mixture.longest} no more than "
            f"{_MOST_OPERATORS} operators in all, got m={level}, w={width}"
        )
    std = float(given.get("magnitude_std", values.get("mstd", math.inf)))
    noise = Noise(std, float(given.get("magnitude_max", 0) or _LIMIT)) if std > 0 else None
    rows = [(Entry(op, 1.0, float(level)),) for op in _AUGMIX]
    found = _space("timm_increasing", given)
    return PolicyTable(text, rows, space=found, draws=width * mixture.longest, noise=noise, mixture=mixture, **look)


def _sections(text: str, head: str, sections: list[str]) -> dict[str, Any]:
    allowed = _NUMBERS.get(head, {"mstd": float})
    values: dict[str, Any] = {}

    def put(key: str, value: Any) -> None:
        if key in values:  # timm takes the first of some keys, the last of others
            raise UserError(f"policy={text!r}: {key} is given twice")
        values[key] = value

    for section in sections:
        if head == "rand" and section.startswith("t"):
            if section[1:] in ("3a", "3aw"):
                raise UserError(f"policy={text!r}: transform set t{section[1:]} is not known here; 3a itself is")
            put("t", choose(f"policy={text!r}: transform set t", section[1:], ["weights"]))
            continue
        key, number = re.fullmatch(r"([^\d-]*)(.*)", section).groups()  # type: ignore[union-attr]
        choose(f"policy={text!r}: key", key, [*allowed, *(["tweights"] if head == "rand" else [])])
        try:
            value = allowed[key](number)
        except ValueError:
            kind = "an integer" if allowed[key] is int else "a number"
            raise UserError(f"policy={text!r}: {key}={number!r} must be {kind}, such as {key}1") from None
        put(key, value)
    return values


def _look_of_timm(given: Mapping[str, Any]) -> dict[str, Any]:
    mean = given.get("img_mean")
    if mean is not None and not isinstance(mean, int):
        values = list(mean)
        mean = values[0] if len(set(values)) == 1 else values
    kinds = given.get("interpolation")
    numbers = None if kinds is None else [kinds] if isinstance(kinds, str | int) else list(kinds)
    return look_of({"fill": mean, "interpolation": numbers})


def _space(name: str, given: Mapping[str, Any]) -> LawSpace:
    found = space(name)
    assert isinstance(found, LawSpace)
    return _translated(found, given)


def _translated(found: LawSpace, given: Mapping[str, Any]) -> LawSpace:
    """The space with timm's ``translate_pct``, if it is given."""
    percent = given.get("translate_pct")
    if percent is None:
        return found
    if isinstance(percent, bool) or not isinstance(percent, int | float) or percent < 0:
        raise UserError(f"hparams.translate_pct={percent!r} must be a number of 0 or more")
    sided = {op: law for op, law in found.laws.items() if law.side != NO_SIDE}
    laws = {**found.laws, **{op: dataclasses.replace(law, scale=float(percent)) for op, law in sided.items()}}
    return dataclasses.replace(found, name=f"{found.name}[translate_pct={percent:g}]", laws=laws)
