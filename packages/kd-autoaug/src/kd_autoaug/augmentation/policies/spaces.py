"""The named spaces. The same level means different pictures in each: compare magnitudes only within one space.

Every figure is the source code's own; what "level" divides by, what is cut to an integer and which sign is drawn are
part of it. Posterize above 8 bits (Google's levels above 20) shifts by a negative number in the original, which is
undefined: here it is the identity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from effkit.errors import UserError, choose
from kd_autoaug.augmentation.policies.bins import BinSpace
from kd_autoaug.augmentation.policies.law import HEIGHT, WIDTH, Law
from kd_autoaug.augmentation.policies.space import LawSpace, Space
from kd_autoaug.ops.operators import BICUBIC, BILINEAR, Op

__all__ = ["SPACES", "space"]

_PLAIN = {op: Law() for op in (Op.IDENTITY, Op.AUTOCONTRAST, Op.EQUALIZE, Op.INVERT)}
_ENHANCERS = (Op.COLOR, Op.CONTRAST, Op.BRIGHTNESS, Op.SHARPNESS)
_PIL_GREY = (125, 123, 114)  # the colour of cutout in the codes that descend from rpmcruz/autoaugment


def _signed(last: float, side: int = 0) -> Law:
    return Law(last, sign="scaled", side=side)


def _join(*parts: Mapping[Op, Law]) -> Mapping[Op, Law]:
    return {op: law for part in parts for op, law in part.items()}


def _geometry(shear: float, translate: tuple[Law, Law], rotate: float | None = 30.0) -> dict[Op, Law]:
    laws = {Op.SHEAR_X: _signed(shear), Op.SHEAR_Y: _signed(shear)}
    laws |= {Op.TRANSLATE_X: translate[0], Op.TRANSLATE_Y: translate[1]}
    return laws if rotate is None else laws | {Op.ROTATE: _signed(rotate)}


def _pixels(last: float) -> tuple[Law, Law]:
    return _signed(last), _signed(last)


def _sides(last: float) -> tuple[Law, Law]:
    return _signed(last, WIDTH), _signed(last, HEIGHT)


_BITS = Law(4.0, truncate="scaled", lowest=0.0, highest=8.0)
_BITS_ORIGINAL = dataclasses.replace(_BITS, offset=4.0)
_BITS_INCREASING = dataclasses.replace(_BITS_ORIGINAL, direction=-1.0)
_THRESHOLD = Law(256.0, truncate="scaled", cap=256.0)
_THRESHOLD_INCREASING = dataclasses.replace(_THRESHOLD, offset=256.0, direction=-1.0)
_FACTOR = Law(1.8, offset=0.1)
_FACTOR_INCREASING = Law(0.9, offset=1.0, sign="scaled", lowest=0.1)

_GOOGLE = {Op.POSTERIZE: _BITS, Op.SOLARIZE: _THRESHOLD, Op.SOLARIZE_ADD: Law(110.0, truncate="scaled")}
_GOOGLE |= dict.fromkeys(_ENHANCERS, _FACTOR)
_GOOGLE_OPS = (
    "AUTOCONTRAST EQUALIZE INVERT ROTATE POSTERIZE SOLARIZE COLOR CONTRAST BRIGHTNESS SHARPNESS SHEAR_X SHEAR_Y"
)


def _ops(names: str) -> tuple[Op, ...]:
    return tuple(Op[name] for name in names.split())


def _tf_tpu(name: str, translate: float, cutout: float) -> LawSpace:
    return LawSpace(
        name=name,
        source="tensorflow/tpu models/official/efficientnet/autoaugment.py",
        operators=_ops(_GOOGLE_OPS + " TRANSLATE_X TRANSLATE_Y CUTOUT SOLARIZE_ADD"),
        maximum=10.0,
        fill=128,
        cutout="half",
        laws=_join(_PLAIN, _GOOGLE, _geometry(0.3, _pixels(translate)), {Op.CUTOUT: Law(cutout, truncate="scaled")}),
    )


_TIMM = _join(
    _PLAIN, _GOOGLE, _geometry(0.3, _sides(0.45)), {Op.SOLARIZE_ADD: Law(110.0, truncate="scaled", cap=128.0)}
)
_TIMM_OPS = (
    "AUTOCONTRAST EQUALIZE INVERT ROTATE POSTERIZE SOLARIZE SOLARIZE_ADD COLOR CONTRAST BRIGHTNESS SHARPNESS "
    "SHEAR_X SHEAR_Y TRANSLATE_X TRANSLATE_Y"
)
_INCREASING = dict.fromkeys(_ENHANCERS, _FACTOR_INCREASING) | {Op.SOLARIZE: _THRESHOLD_INCREASING}


def _timm(name: str, changes: Mapping[Op, Law]) -> LawSpace:
    return LawSpace(
        name=name,
        source="timm 1.0.31 timm/data/auto_augment.py",
        operators=_ops(_TIMM_OPS),
        maximum=10.0,
        interpolation=(BILINEAR, BICUBIC),
        fill=128,
        prob=0.5,
        laws=_join(_TIMM, changes),
    )


_PIL_FACTOR = Law(1.9 - 0.1, offset=0.1)  # 1.7999999999999998, as the source computes it
_RA_PYTORCH = LawSpace(
    name="ra_pytorch",
    # Its solarize-add adds to all values and then solarizes at 128; ours adds below 128 as Google's does.
    source="ildoonet/pytorch-randaugment RandAugment/augmentations.py",
    operators=_ops(
        "AUTOCONTRAST EQUALIZE INVERT ROTATE POSTERIZE SOLARIZE SOLARIZE_ADD COLOR CONTRAST BRIGHTNESS SHARPNESS "
        "SHEAR_X SHEAR_Y CUTOUT TRANSLATE_X TRANSLATE_Y"
    ),
    maximum=30.0,
    cutout="rectangle_or_dot",
    cutout_fill=_PIL_GREY,
    denominator=30.0,
    laws=_join(
        _PLAIN,
        _geometry(0.3, _pixels(100.0)),
        dict.fromkeys(_ENHANCERS, _PIL_FACTOR),
        {Op.POSTERIZE: dataclasses.replace(_BITS, truncate="total"), Op.SOLARIZE: Law(256.0), Op.CUTOUT: Law(40.0)},
        {Op.SOLARIZE_ADD: Law(110.0)},
    ),
)

_RESMOOTH = LawSpace(
    name="resmooth",
    source="Chenyang4/ReSmooth RandAugment/augmentations.py, augment_list",
    operators=_ops(
        "IDENTITY SHEAR_X SHEAR_Y TRANSLATE_X TRANSLATE_Y ROTATE AUTOCONTRAST INVERT EQUALIZE SOLARIZE POSTERIZE COLOR "
        "BRIGHTNESS SHARPNESS"
    ),
    maximum=30.0,
    denominator=30.0,
    laws=_join(
        _PLAIN,
        _geometry(0.3, _sides(0.45)),
        dict.fromkeys((Op.COLOR, Op.BRIGHTNESS, Op.SHARPNESS), _PIL_FACTOR),
        # Named contrast there too, but centred, and absent from its list of operators.
        {Op.CONTRAST: Law(0.9, offset=1.0, sign="scaled")},
        {Op.SOLARIZE: Law(256.0), Op.POSTERIZE: dataclasses.replace(_BITS_ORIGINAL, truncate="total")},
    ),
)

_SEVERE = LawSpace(
    name="severe",
    source="Chenyang4/ReSmooth RandAugment/augmentations.py, augment_severe_list",
    operators=_ops("SHEAR_X SHEAR_Y TRANSLATE_X TRANSLATE_Y CUTOUT"),
    maximum=10.0,
    cutout="rectangle",
    cutout_fill=_PIL_GREY,
    laws=_join(
        _geometry(2.0, _sides(1.0), rotate=None),
        {Op.CUTOUT: Law(1.0, root=True, side=WIDTH)},  # the level is the area's share
    ),
)


def _mirrored(last: float, side: int = 0) -> Law:
    return Law(last - -last, offset=-last, sign="total", side=side)  # level 0..1 covers -last..last, then mirrored


_FAST_AA = LawSpace(
    name="fast_aa",
    source="kakaobrain/fast-autoaugment FastAutoAugment/augmentations.py",
    operators=_ops(
        "SHEAR_X SHEAR_Y TRANSLATE_X TRANSLATE_Y ROTATE AUTOCONTRAST INVERT EQUALIZE SOLARIZE POSTERIZE CONTRAST COLOR "
        "BRIGHTNESS SHARPNESS CUTOUT"
    ),
    maximum=1.0,
    denominator=1.0,
    cutout="rectangle",
    cutout_fill=_PIL_GREY,
    laws=_join(
        _PLAIN,
        {Op.SHEAR_X: _mirrored(0.3), Op.SHEAR_Y: _mirrored(0.3), Op.ROTATE: _mirrored(30.0)},
        {Op.TRANSLATE_X: _mirrored(0.45, WIDTH), Op.TRANSLATE_Y: _mirrored(0.45, HEIGHT)},
        dict.fromkeys(_ENHANCERS, _PIL_FACTOR),
        {Op.SOLARIZE: Law(256.0), Op.POSTERIZE: dataclasses.replace(_BITS_ORIGINAL, truncate="total")},
        {Op.CUTOUT: Law(0.2, side=WIDTH)},
    ),
)

_LINEAR = LawSpace(
    name="linear",
    source="ours: strength in units of the usual range, every operator stronger with M, 0 is no augmentation",
    operators=_ops("SHEAR_X SHEAR_Y TRANSLATE_X TRANSLATE_Y ROTATE BRIGHTNESS CONTRAST SOLARIZE CUTOUT"),
    maximum=4.0,
    interpolation=(BILINEAR,),
    cutout="centred",
    denominator=1.0,
    laws=_join(
        _geometry(0.3, _sides(0.45)),
        dict.fromkeys(_ENHANCERS, Law(0.9, offset=1.0, sign="scaled")),
        {Op.SOLARIZE: Law(256.0, offset=256.0, direction=-1.0, lowest=0.0), Op.CUTOUT: Law(0.5, side=WIDTH)},
    ),
)

_TORCHVISION_OPS = _ops(
    "IDENTITY SHEAR_X SHEAR_Y TRANSLATE_X TRANSLATE_Y ROTATE BRIGHTNESS COLOR CONTRAST SHARPNESS POSTERIZE SOLARIZE "
    "AUTOCONTRAST EQUALIZE"
)
_TORCHVISION = BinSpace(
    name="torchvision",
    source="torchvision 0.29 transforms/v2/_auto_augment.py, AutoAugment and RandAugment",
    operators=_TORCHVISION_OPS,
    maximum=30.0,
)
_TA_WIDE = BinSpace(
    name="ta_wide",
    source="torchvision 0.29 transforms/v2/_auto_augment.py, TrivialAugmentWide",
    operators=_TORCHVISION_OPS,
    maximum=30.0,
    shear=0.99,
    translate=32.0,
    relative=False,
    rotate=135.0,
    enhance=0.99,
    posterize=6,
)

SPACES: Mapping[str, Space] = MappingProxyType(
    {
        s.name: s
        for s in (
            _tf_tpu("tf_tpu", 100.0, 40.0),
            _tf_tpu("tf_tpu_autoaugment", 250.0, 100.0),
            _RA_PYTORCH,
            _TORCHVISION,
            _timm("timm", {}),
            _timm("timm_increasing", _INCREASING | {Op.POSTERIZE: _BITS_INCREASING}),
            _timm("timm_original", {Op.POSTERIZE: _BITS_ORIGINAL}),
            _timm("timm_research", {Op.POSTERIZE: _BITS_INCREASING}),
            _TA_WIDE,
            _RESMOOTH,
            _SEVERE,
            _FAST_AA,
            _LINEAR,
        )
    }
)


def space(name: str | Space, *, bins: int | None = None) -> Space:
    """A named space.

    Args:
        name: One of ``SPACES``, or a space of your own, which is returned.
        bins: Number of bins, for the spaces that have bins.

    Returns:
        The space.

    Raises:
        UserError: If there is none of that name, or ``bins`` is given to a space without bins.
    """
    found = name if isinstance(name, Space) else SPACES[choose("space", name, SPACES)]
    if bins is None:
        return found
    if not isinstance(found, BinSpace):
        raise UserError(f"bins={bins!r} is for spaces with bins (torchvision, ta_wide), not for {found.name}")
    return dataclasses.replace(found, bins=bins)
