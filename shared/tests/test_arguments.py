"""Values from a config are of the kind that annotations ask for, and errors name the key that was written."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pytest

from effkit.arguments import check_arguments, foreign, input_file, named_below, named_path
from effkit.errors import UserError

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]

Colour = int | Sequence[int]


def function(
    count: int = 1,
    share: float = 0.5,
    flag: bool = False,
    word: str = "",
    maybe: int | None = None,
    mode: Literal["a", "b"] = "a",
    numbers: Sequence[float] = (),
    size: int | tuple[int, int] = 1,
    path: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
    colour: Colour = 0,
    rank: int | Literal["auto"] = 1,
    late: "int | None" = None,
    gone: "Unknown" = None,
    anything: Any = None,
) -> None:
    """Annotations as commands have them."""


class Parent:
    def __init__(self, size: int, **rest: Any) -> None: ...


class Child(Parent):
    def __init__(self, flag: bool, **rest: Any) -> None: ...


@pytest.mark.parametrize(
    "values",
    [
        {"count": 3, "share": 1, "flag": True, "word": "", "maybe": None, "mode": "b", "numbers": [1, 2.5]},
        {"size": [1, 2], "path": "a", "options": {"a": 1}, "colour": [1, 2, 3], "rank": "auto", "late": 4},
        {"gone": 5, "anything": [], "unknown": 1, "share": math.inf},
    ],
    ids=str,
)
def test_what_fits_passes(values):
    check_arguments(function, values)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("count", "3", "count='3' must be a whole number"),
        ("count", True, "count=true must be a whole number"),
        ("count", 1.5, "count=1.5"),
        ("count", None, "count=null must be a whole number"),
        ("share", math.nan, "share=nan must be a number"),
        ("share", [0.5], "share=[0.5] must be a number"),
        ("flag", 0, "flag=0 must be true or false"),
        ("flag", "no", "flag='no' must be true or false"),
        ("word", 5, "word=5 must be text"),
        ("maybe", "none", "maybe='none' must be a whole number or null"),
        ("mode", "c", "mode='c' must be one of a, b"),
        ("numbers", "abc", "numbers='abc' must be a list of numbers"),
        ("numbers", [1, "b"], "numbers=[1, 'b']"),
        ("size", [1], "size=[1] must be a whole number or 2 whole numbers [a, b]"),
        ("path", 5, "path=5 must be a path or null"),
        ("options", [1], "options=[1] must be a mapping of keys and values or null"),
        ("colour", "red", "colour='red' must be a whole number or a list of whole numbers"),
        ("rank", "most", "rank='most' must be a whole number or 'auto'"),
        ("late", "x", "late='x'"),
    ],
)
def test_what_does_not_fit_is_one_line(name, value, said):
    with pytest.raises(UserError) as error:
        check_arguments(function, {name: value})
    assert said in str(error.value)


def test_arguments_of_a_class_are_those_of_its_parents_too():
    check_arguments(Child, {"flag": True, "size": 3})
    with pytest.raises(UserError, match=r"^data\.size='x'"):
        check_arguments(Child, {"flag": True, "size": "x"}, "data.")


def test_null_may_stand_for_an_argument_left_out():
    check_arguments(function, {"count": None}, also=["count"])


def test_errors_name_the_key_below_its_group():
    with pytest.raises(UserError, match=r"^model\.depth=0 is too small"), named_below("model.", ["depth"]):
        raise UserError("depth=0 is too small")
    names = ["depth", "embed_dim"]
    with pytest.raises(UserError) as error, named_below("model.", names):
        raise UserError("heads=5 must divide embed_dim=48, got 'depth=3' for x.depth=1 and mydepth=2; depth is odd")
    wanted = "heads=5 must divide model.embed_dim=48, got 'depth=3' for x.depth=1 and mydepth=2; depth is odd"
    assert str(error.value) == wanted


def test_paths_are_text_and_not_empty(tmp_path):
    assert named_path("run", "x") == "x"
    for value, said in (("", "run= is empty"), (5, "run=5 must be a path"), (False, "run=false")):
        with pytest.raises(UserError, match=said):
            named_path("run", value)
    (tmp_path / "a.txt").write_text("x")
    assert input_file("text", str(tmp_path / "a.txt")) == str(tmp_path / "a.txt")
    for path, said in ((tmp_path, "is no file"), (tmp_path / "b.txt", "does not exist")):
        with pytest.raises(UserError, match=said):
            input_file("text", str(path))


def test_a_librarys_error_about_values_is_one_line():
    def build(heads):
        assert 48 % heads == 0, "dim should be\ndivisible by heads"

    with pytest.raises(UserError, match=r"^heads=5: dim should be$"), foreign("heads=5"):
        build(5)
    with pytest.raises(UserError, match=r"^heads=0: integer"), foreign("heads=0"):
        build(0)
    with pytest.raises(UserError, match=r"^ours$"), foreign("heads=1"):
        raise UserError("ours")
    with pytest.raises(UserError, match=r"^much: MemoryError$"), foreign("much"):
        raise MemoryError
    with pytest.raises(FileNotFoundError), foreign("a file"):
        raise FileNotFoundError("not about values")
