"""The spaces against the tables of the installed packages, level by level, and against Pillow on pictures."""

import pytest
import torch
from PIL import Image, ImageChops, ImageDraw
from timm.data import auto_augment as timm_aa
from torchvision.transforms import InterpolationMode, v2

from effkit.errors import UserError
from kd_autoaug.augmentation.policies.boxes import STYLES, boxes
from kd_autoaug.augmentation.policies.spaces import SPACES, space
from kd_autoaug.ops.operators import Op

SIZE = (24, 40)  # height, width: a mistaken side shows

TIMM_NAMES = {
    "timm": "{}",
    "timm_increasing": "{}Increasing",
    "timm_original": "{}Original",
    "timm_research": "{}Increasing",
}
CAMEL = {
    Op.SHEAR_X: "ShearX",
    Op.SHEAR_Y: "ShearY",
    Op.TRANSLATE_X: "TranslateX",
    Op.TRANSLATE_Y: "TranslateY",
    Op.ROTATE: "Rotate",
    Op.BRIGHTNESS: "Brightness",
    Op.COLOR: "Color",
    Op.CONTRAST: "Contrast",
    Op.SHARPNESS: "Sharpness",
    Op.POSTERIZE: "Posterize",
    Op.SOLARIZE: "Solarize",
    Op.SOLARIZE_ADD: "SolarizeAdd",
    Op.AUTOCONTRAST: "AutoContrast",
    Op.EQUALIZE: "Equalize",
    Op.INVERT: "Invert",
    Op.IDENTITY: "Identity",
}
PLAIN = {Op.IDENTITY, Op.AUTOCONTRAST, Op.EQUALIZE, Op.INVERT}


def photograph(size=SIZE):
    generator = torch.Generator().manual_seed(3)
    low = torch.rand(1, 3, 6, 10, generator=generator)
    image = torch.nn.functional.interpolate(low, size=size, mode="bicubic").clamp(0, 1)
    return v2.functional.to_pil_image((image[0] * 255).to(torch.uint8))


def timm_name(op, space_name):
    """The name timm gives an operator in a space of ours."""
    changed = {
        "timm": set(),
        "timm_original": {Op.POSTERIZE},
        "timm_research": {Op.POSTERIZE},
        "timm_increasing": {Op.POSTERIZE, Op.SOLARIZE, Op.COLOR, Op.CONTRAST, Op.BRIGHTNESS, Op.SHARPNESS},
    }[space_name]
    name = CAMEL[op] + ("Rel" if op in (Op.TRANSLATE_X, Op.TRANSLATE_Y) else "")
    return TIMM_NAMES[space_name].format(name) if op in changed else name


@pytest.mark.parametrize("space_name", TIMM_NAMES)
@pytest.mark.parametrize("negative", [False, True])
def test_timm_levels(space_name, negative, monkeypatch):
    found = space(space_name)
    monkeypatch.setattr(timm_aa, "_randomly_negate", lambda v: -v if negative else v)
    levels = [*range(11), 0.3, 2.5, 7.77, 9.999, 12, 28, 30]
    compared = 0
    for op in found.operators:
        law = timm_aa.LEVEL_TO_ARG[timm_name(op, space_name)]
        for level in levels:
            ours = found.argument(op, level, SIZE, negative=negative)
            if law is None:
                assert ours == 0.0
                continue
            (theirs,) = law(level, {})
            if op == Op.TRANSLATE_X:
                theirs *= SIZE[1]
            elif op == Op.TRANSLATE_Y:
                theirs *= SIZE[0]
            elif op == Op.POSTERIZE:
                theirs = min(max(theirs, 0), 8)  # above 8 the identity, below 0 (an error in Pillow) black
            assert ours == theirs, (op, level)
            compared += 1
    assert compared == len(levels) * 12


def test_timm_lists():
    for name, theirs in (("timm", timm_aa._RAND_TRANSFORMS), ("timm_increasing", timm_aa._RAND_INCREASING_TRANSFORMS)):
        assert [timm_name(op, name) for op in space(name).operators] == theirs
        assert space(name).fill == timm_aa._FILL[0]
        assert set(space(name).interpolation) == {int(i) for i in timm_aa._RANDOM_INTERPOLATION}


@pytest.mark.parametrize(
    ("name", "bins", "cls"),
    [
        ("torchvision", 10, v2.AutoAugment),
        ("torchvision", 31, v2.RandAugment),
        ("torchvision", 11, v2.RandAugment),
        ("ta_wide", 31, v2.TrivialAugmentWide),
        ("ta_wide", 7, v2.TrivialAugmentWide),
    ],
)
def test_torchvision_tables(name, bins, cls):
    found = space(name, bins=bins)
    table = cls._AUGMENTATION_SPACE
    known = {op: CAMEL[op] for op in Op if found.knows(op) and CAMEL[op] in table}
    assert set(known.values()) == set(table)
    if cls is not v2.AutoAugment:
        assert [CAMEL[op] for op in found.operators] == list(table)
    for op, camel in known.items():
        function, signed = table[camel]
        magnitudes = function(bins, *SIZE)
        for b in range(bins):
            plus, minus = (found.argument(op, b, SIZE, negative=n) for n in (False, True))
            if magnitudes is None:
                assert plus == minus == 0.0
                continue
            m = float(magnitudes[b])
            expected = [torchvision_argument(op, m), torchvision_argument(op, -m if signed else m)]
            assert [plus, minus] == expected, (op, b)


def torchvision_argument(op, m):
    """What torchvision hands to Pillow for a magnitude; translations read where we read."""
    if op in (Op.TRANSLATE_X, Op.TRANSLATE_Y):
        return -int(m)
    if op in (Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS):
        return 1.0 + m
    return int(m) if op == Op.POSTERIZE else 255.0 * m if op == Op.SOLARIZE else m


def affine(image, op, argument, interpolation=Image.Resampling.NEAREST):
    """Pillow, driven by an argument in the units of ``ops.operators.ARGUMENTS``."""
    if op == Op.ROTATE:
        return image.rotate(argument, interpolation)
    matrix = {
        Op.SHEAR_X: (1, argument, 0, 0, 1, 0),
        Op.SHEAR_Y: (1, 0, 0, argument, 1, 0),
        Op.TRANSLATE_X: (1, 0, argument, 0, 1, 0),
        Op.TRANSLATE_Y: (1, 0, 0, 0, 1, argument),
    }[op]
    return image.transform(image.size, Image.Transform.AFFINE, matrix, interpolation)


@pytest.mark.parametrize("op", [Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y, Op.ROTATE])
@pytest.mark.parametrize("negative", [False, True])
def test_directions_are_torchvision_s_on_pictures(op, negative):
    image, transform = photograph(), v2.RandAugment()
    for bin_number in (3, 17, 30):
        magnitude = float(transform._AUGMENTATION_SPACE[CAMEL[op]][0](31, *SIZE)[bin_number])
        theirs = transform._apply_image_or_video_transform(
            image, CAMEL[op], -magnitude if negative else magnitude, InterpolationMode.NEAREST, {}
        )
        ours = affine(image, op, space("torchvision").argument(op, bin_number, SIZE, negative=negative))
        assert ImageChops.difference(ours, theirs).getbbox() is None
        assert ImageChops.difference(ours, image).getbbox() is not None  # something did move


@pytest.mark.parametrize("op", [Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y, Op.ROTATE])
@pytest.mark.parametrize("negative", [False, True])
def test_directions_are_timm_s_on_pictures(op, negative, monkeypatch):
    monkeypatch.setattr(timm_aa, "_randomly_negate", lambda v: -v if negative else v)
    image = photograph()
    for resample in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
        operation = timm_aa.AugmentOp(timm_name(op, "timm"), 1.0, 7, {"img_mean": (0, 0, 0), "interpolation": resample})
        ours = affine(image, op, space("timm").argument(op, 7, SIZE, negative=negative), resample)
        assert ImageChops.difference(ours, operation(image)).getbbox() is None


# Figures of the sheet: operator, level, argument with sign plus (a picture of 24 x 40).
GOOGLE = [
    (Op.SHEAR_X, 5, 0.15),
    (Op.ROTATE, 28, 84.0),
    (Op.SHEAR_Y, 28, 0.84),
    (Op.BRIGHTNESS, 5, 1.0),
    (Op.COLOR, 28, 2.8 * 1.8 + 0.1),
    (Op.POSTERIZE, 9, 3),
    (Op.POSTERIZE, 0, 0),
    (Op.POSTERIZE, 28, 8),  # int(11.2) bits: the identity
    (Op.SOLARIZE, 9, 230),
    (Op.SOLARIZE_ADD, 9, 99),
    (Op.SOLARIZE, 28, 256),  # int(716.8): nothing is as bright
]


@pytest.mark.parametrize(("op", "level", "argument"), GOOGLE)
def test_google_s_levels(op, level, argument):
    for name in ("tf_tpu", "tf_tpu_autoaugment"):
        assert space(name).argument(op, level, SIZE) == pytest.approx(argument, abs=1e-12)


def test_google_s_pixels_do_not_depend_on_the_size():
    for name, translate, cutout in (("tf_tpu", 100, 40), ("tf_tpu_autoaugment", 250, 100)):
        for size in (SIZE, (224, 224)):
            assert space(name).argument(Op.TRANSLATE_X, 10, size) == translate
            assert space(name).argument(Op.TRANSLATE_Y, 5, size, negative=True) == -translate / 2
            assert space(name).argument(Op.CUTOUT, 7, size) == int(0.7 * cutout)
    assert len(space("tf_tpu").operators) == 16


# Minimum and maximum of an operator at the ends of the level's range, as the sources' lists of operators have them.
RANGES = {
    "ra_pytorch": {
        "ROTATE": (0, 30),
        "POSTERIZE": (0, 4),
        "SOLARIZE": (0, 256),
        "SOLARIZE_ADD": (0, 110),
        "COLOR": (0.1, 1.9),
        "SHARPNESS": (0.1, 1.9),
        "SHEAR_X": (0, 0.3),
        "CUTOUT": (0, 40),
        "TRANSLATE_X": (0, 100),
        "TRANSLATE_Y": (0, 100),
    },
    "resmooth": {
        "SHEAR_X": (0, 0.3),
        "TRANSLATE_X": (0, 0.45 * SIZE[1]),
        "TRANSLATE_Y": (0, 0.45 * SIZE[0]),
        "ROTATE": (0, 30),
        "SOLARIZE": (0, 256),
        "POSTERIZE": (4, 8),
        "BRIGHTNESS": (0.1, 1.9),
        "CONTRAST": (1.0, 1.9),
    },
    "severe": {"SHEAR_Y": (0, 2), "TRANSLATE_X": (0, SIZE[1]), "TRANSLATE_Y": (0, SIZE[0]), "CUTOUT": (0, SIZE[1])},
    "fast_aa": {
        "SHEAR_X": (-0.3, 0.3),
        "TRANSLATE_X": (-0.45 * SIZE[1], 0.45 * SIZE[1]),
        "TRANSLATE_Y": (-0.45 * SIZE[0], 0.45 * SIZE[0]),
        "ROTATE": (-30, 30),
        "SOLARIZE": (0, 256),
        "POSTERIZE": (4, 8),
        "CONTRAST": (0.1, 1.9),
        "CUTOUT": (0, 0.2 * SIZE[1]),
    },
}


@pytest.mark.parametrize("name", RANGES)
def test_ranges_of_the_pillow_codes(name):
    found = space(name)
    for op_name, (low, high) in RANGES[name].items():
        op = Op[op_name]
        assert found.argument(op, 0, SIZE) == pytest.approx(low, abs=1e-12)
        assert found.argument(op, found.maximum, SIZE) == pytest.approx(high, abs=1e-12)
        if op in (Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y, Op.ROTATE):
            for level in (0.25 * found.maximum, found.maximum):
                assert found.argument(op, level, SIZE, negative=True) == -found.argument(op, level, SIZE)
    assert space("ra_pytorch").argument(Op.POSTERIZE, 29, SIZE) == 3  # int(3.87)
    assert space("severe").argument(Op.CUTOUT, 2.5, SIZE) == 0.5 * SIZE[1]  # a quarter of the area


def test_the_linear_space_of_the_digits_experiment():
    found, side = space("linear"), (8, 8)
    for m in (0.3, 1.0, 2.0):
        assert found.argument(Op.SHEAR_X, m, side) == pytest.approx(0.3 * m)
        assert found.argument(Op.TRANSLATE_Y, m, side, negative=True) == pytest.approx(-0.45 * m * 8)
        assert found.argument(Op.ROTATE, m, side) == pytest.approx(30 * m)
        assert found.argument(Op.BRIGHTNESS, m, side) == pytest.approx(1 + 0.9 * m)
        assert found.argument(Op.CONTRAST, m, side, negative=True) == pytest.approx(1 - 0.9 * m)
        assert found.argument(Op.SOLARIZE, m, side) == pytest.approx(256 * max(0.0, 1 - m))
        assert found.argument(Op.CUTOUT, m, side) == pytest.approx(4 * m)
    for op in found.operators:  # nothing at 0
        neutral = {Op.BRIGHTNESS: 1, Op.CONTRAST: 1, Op.SOLARIZE: 256}.get(op, 0)
        assert found.argument(op, 0, side) == neutral


def test_strength_grows_where_the_source_says_so():
    """Google's posterize and solarize weaken as m grows; timm's increasing ones and torchvision's do not."""
    down, up = space("tf_tpu"), space("timm_increasing")
    for op in (Op.POSTERIZE, Op.SOLARIZE):
        assert down.argument(op, 2, SIZE) < down.argument(op, 8, SIZE)
        assert up.argument(op, 2, SIZE) > up.argument(op, 8, SIZE)
        assert space("torchvision").argument(op, 5, SIZE) > space("torchvision").argument(op, 25, SIZE)


@pytest.mark.parametrize("name", SPACES)
def test_levels_outside_are_refused(name):
    found = space(name)
    found.check_level("m", found.maximum)
    found.check_level("m", 0)
    for level in (-1, found.maximum + 1, float("nan"), "9", None, True):
        with pytest.raises(UserError) as caught:
            found.check_level("m", level)
        message = str(caught.value)
        assert f"m={level!r}" in message
        assert name in message
        assert f"{found.maximum:g}" in message


def test_extrapolation():
    assert space("tf_tpu").check_level("m", 28, extrapolate=True) == 28.0
    for level in (-1, float("inf")):
        with pytest.raises(UserError):
            space("tf_tpu").check_level("m", level, extrapolate=True)
    with pytest.raises(UserError, match="no law by which to extrapolate"):
        space("torchvision").check_level("m", 31, extrapolate=True)
    with pytest.raises(UserError, match=r"m=4\.5"):
        space("torchvision").check_level("m", 4.5)


def test_names_and_bins():
    with pytest.raises(UserError, match="did you mean 'tf_tpu'"):
        space("tf_tpuu")
    with pytest.raises(UserError, match="bins=5"):
        space("timm", bins=5)
    with pytest.raises(UserError, match="bins=1"):
        space("torchvision", bins=1)
    with pytest.raises(UserError, match="solarize_add"):
        space("torchvision").check_operator("ops", Op.SOLARIZE_ADD)
    with pytest.raises(TypeError):
        SPACES["mine"] = space("timm")
    with pytest.raises(TypeError):
        space("timm").laws[Op.ROTATE] = None
    assert all(s.source for s in SPACES.values())


def words(values):
    return torch.tensor([int(v * 2**32) for v in values])


def test_pillow_s_rectangles():
    """The boxes of the Pillow codes, against Pillow drawing the same floats."""
    generator = torch.Generator().manual_seed(0)
    u, v = torch.rand(2, 200, generator=generator, dtype=torch.float64)
    extents = torch.rand(200, generator=generator, dtype=torch.float64) * 30
    extents[:20] = extents[:20].round()
    extents[20:25] = 0
    height, width = SIZE
    found = boxes("rectangle_or_dot", extents, words(u.tolist()), words(v.tolist()), SIZE)
    for i, (left, top, right, bottom) in enumerate(found.tolist()):
        x, y = (words([t[i]]).item() / 2**32 * side for t, side in ((u, width), (v, height)))
        extent = float(extents[i])
        x0, y0 = int(max(0, x - extent / 2.0)), int(max(0, y - extent / 2.0))
        image = Image.new("L", (width, height), 0)
        ImageDraw.Draw(image).rectangle((x0, y0, min(width, x0 + extent), min(height, y0 + extent)), 255)
        assert image.getbbox() == (left, top, min(right, width), min(bottom, height)), i
    assert boxes("rectangle", extents, words(u.tolist()), words(v.tolist()), SIZE)[20:25].abs().sum() == 0
    assert torch.equal(boxes("rectangle", extents, words(u.tolist()), words(v.tolist()), SIZE)[25:], found[25:])


def test_google_s_and_centred_boxes():
    across, down = words([0.0, 0.5, 0.999]), words([0.999, 0.5, 0.0])
    extent = torch.tensor([3.0, 3.0, 3.0], dtype=torch.float64)
    half = boxes("half", extent, across, down, SIZE)
    assert half.tolist() == [[-3, 20, 3, 26], [17, 9, 23, 15], [36, -3, 42, 3]]
    centred = boxes("centred", extent, across, down, SIZE)
    assert centred.tolist() == [[-1, 22, 2, 25], [19, 11, 22, 14], [38, -1, 41, 2]]
    nothing = boxes("centred", extent * 0, across, down, SIZE)
    assert torch.equal(nothing[:, :2], nothing[:, 2:])
    assert boxes("none", extent, across, down, SIZE).sum() == 0
    with pytest.raises(UserError, match="cutout"):
        boxes("round", extent, across, down, SIZE)
    assert {s.cutout for s in SPACES.values()} <= set(STYLES)
