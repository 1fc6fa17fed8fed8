"""effkit.cli.build: what a config may name, and what it may not."""

import pytest

from effkit.cli import build
from effkit.errors import UserError


def test_build_makes_what_the_config_names(demo, capfd):
    assert demo(["build", "target.width=5"]) == 0
    assert "Layer(width=5)" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("os.system", "'os.system' is not allowed, targets come from effkit, torch.nn, torch.optim"),
        ("torch.load", "'torch.load' is not allowed"),
        ("effkit.errors.UserErrr", "does not exist"),
        ("effkit.errors.difflib.get_close_matches", "is not allowed: it is defined in 'difflib'"),
        ("demo.layers", "is not allowed"),
    ],
)
def test_build_refuses_other_targets(demo, error_line, target, expected):
    assert demo(["build", f"target._target_={target}"]) == 2
    assert expected in error_line()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("+target.wdith=2", "unexpected keyword argument 'wdith'"),
        ("~target.width", "missing 1 required positional argument: 'width'"),
        ("target.width=-1", "width must be positive, got -1"),
    ],
)
def test_build_names_what_the_constructor_does_not_take(demo, error_line, override, expected):
    assert demo(["build", override]) == 2
    assert expected in error_line()


def test_build_checks_nested_targets_and_wants_one(demo):
    with pytest.raises(UserError, match=r"layers\.1\._target_='os.getcwd' is not allowed"):
        build({"_target_": "effkit.report.Report", "title": "", "layers": [{"a": 1}, {"_target_": "os.getcwd"}]})
    with pytest.raises(UserError, match="_target_ must be given"):
        build({"in_features": 2})


def test_build_takes_further_packages_arguments_and_lets_errors_out(demo):
    with pytest.raises(UserError, match="is not allowed"):
        build({"_target_": "demo.layers.Layer", "width": 1})
    layer = build({"_target_": "demo.layers.Layer", "width": 1}, allow=["demo."], width=3)
    assert layer.width == 3
    with pytest.raises(ValueError, match="width must be positive, got 0") as caught:
        build({"_target_": "demo.layers.Layer"}, 0, allow=["demo."])
    assert type(caught.value) is ValueError
