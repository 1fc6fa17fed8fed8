"""effkit.errors: a message names the field, the value received, the values allowed and the nearest of them."""

import pytest

from effkit.errors import UserError, choose, nearest


def test_choose_returns_the_very_value():
    allowed = ("a", "b")
    assert choose("letter", "b", allowed) == "b"
    assert choose("size", 2, iter([1, 2])) == 2


def test_choose_names_field_value_allowed_and_nearest():
    with pytest.raises(UserError) as caught:
        choose("data.name", "digit", ["cifar10", "digits"])
    message = str(caught.value)
    assert "data.name='digit'" in message
    assert "cifar10, digits" in message
    assert "did you mean 'digits'?" in message


def test_no_guess_where_nothing_is_alike():
    with pytest.raises(UserError) as caught:
        choose("precision", "fast", ["fp32", "bf16"])
    assert "did you mean" not in str(caught.value)
    assert nearest("fast", ["fp32", "bf16"]) is None


def test_values_that_are_no_strings():
    with pytest.raises(UserError, match=r"stride=3 is not known, choose one of 2, 4"):
        choose("stride", 3, [2, 4])


def test_a_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)


@pytest.mark.parametrize(
    ("name", "expected"), [("tnt_s", "tnt_s_patch16"), ("TNT_B_PATCH16", None), ("trian", "train"), ("", None)]
)
def test_nearest(name, expected):
    assert nearest(name, ["tnt_s_patch16", "train", "eval"]) == expected
