"""Uniform scaling: pycls' numbers by a factor, and exact budgets."""

from __future__ import annotations

import itertools

import pytest

from effkit.errors import UserError
from greedy_enlarge.families import base, macs
from greedy_enlarge.families.scaling import METHODS, scale, scale_by_factor


@pytest.mark.parametrize(("factor", "expected"), [(2, 781_816_464), (4, 1_381_104_800), (1.780, 733_542_384)])
def test_fast_scaling_by_a_factor_is_that_of_pycls(factor, expected):
    assert macs(scale_by_factor(base("efficientnet_b0"), factor, "fast")) == expected


def test_a_factor_of_one_changes_nothing():
    for name, method in itertools.product(("efficientnet_b0", "ghostnet_large", "resnet50", "regnety_004"), METHODS):
        spec = base(name)
        again = scale_by_factor(spec, 1.0, method)
        assert (again.coordinates(), macs(again)) == (spec.coordinates(), macs(spec))


@pytest.mark.parametrize("name", ["efficientnet_b0", "ghostnet_large", "resnet18", "resnet50", "regnety_004", "tiny"])
@pytest.mark.parametrize("method", ["compound", "fast"])
@pytest.mark.parametrize("ratio", [0.6, 1.3, 1.78, 2.0, 4.0, 11.4])
def test_budgets_are_met_within_one_percent(name, method, ratio):
    spec = base(name)
    budget = round(ratio * macs(spec))
    step = 4 if name == "tiny" else None
    found = scale(spec, budget, method, width_step=step, tolerance=0.03 if name == "tiny" else 0.01)
    assert abs(macs(found) - budget) <= (0.03 if name == "tiny" else 0.01) * budget
    if ratio > 1.3:
        assert found.includes(spec)


@pytest.mark.parametrize(("method", "kept"), [("depth", "widths"), ("width", "depths"), ("resolution", "widths")])
def test_single_methods_change_one_kind(method, kept):
    spec = base("efficientnet_b0")
    found = scale(spec, 2 * macs(spec), method, tolerance=0.05)
    assert getattr(found, kept) == getattr(spec, kept)
    assert (found.resolution == spec.resolution) == (method != "resolution")


def test_stages_grow_alike():
    found = scale(base("efficientnet_b0"), 1_500_000_000, "width")
    ratios = [a / b for a, b in zip(found.widths, base("efficientnet_b0").widths, strict=True)]
    assert max(ratios) / min(ratios) < 1.3


def test_what_a_staircase_cannot_reach_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="resolution scaling of this network comes no closer than 385,814,752 MACs"):
        scale(base("efficientnet_b0"), 415_000_000, "resolution")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"budget": 0}, "budget=0"),
        ({"budget": True}, "budget=True"),
        ({"method": "compund"}, "did you mean 'compound'"),
        ({"tolerance": 0.0}, "tolerance=0.0"),
        ({"width_step": 0}, "width_step=0"),
        ({"spec": base("ghostnet_100")}, "ghostnet_large is what scales"),
        ({"spec": base("regnety_004"), "width_step": 4}, "multiple of 8"),
    ],
)
def test_bad_input_is_refused(words, said):
    args = {"spec": base("efficientnet_b0"), "budget": 10**9, "method": "compound", **words}
    with pytest.raises(UserError) as error:
        scale(**args)
    assert said in str(error.value)


def test_a_bad_factor_is_refused():
    with pytest.raises(UserError, match="factor=-1"):
        scale_by_factor(base("efficientnet_b0"), -1)
