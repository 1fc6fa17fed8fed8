"""What is written where the config holds a boolean: a boolean in the end, or one line."""

import pytest

from effkit.errors import UserError


@pytest.mark.parametrize(
    ("word", "value"),
    [("1", True), ("0", False), ("true", True), ("null", None), ("warn", "warn"), ("${sleep}", 0)],
)
def test_what_may_stand_for_a_boolean(demo, word, value):
    assert demo.compose("train", [f"trainer.deterministic={word}"]).trainer.deterministic == value


@pytest.mark.parametrize("word", ["maybe", "2", "0.5", "[no]", "'no'", "''", "nope", "{a: 1}"])
def test_anything_else_is_refused(demo, error_line, word):
    assert demo(["train", f"overwrite={word}"]) == 2
    assert "true or false" in error_line()


def test_the_line_names_key_and_value(demo, error_line):
    assert demo(["train", "overwrite=maybe"]) == 2
    assert error_line() == "overwrite=maybe must be true or false"
    assert demo(["train", "trainer.deterministic=wran"]) == 2
    assert error_line() == "trainer.deterministic=wran must be true or false"
    assert demo(["train", "-m", "overwrite=true,maybe"]) == 2
    assert error_line() == "overwrite=maybe must be true or false"


def test_words_inside_a_mapping_are_booleans_where_the_config_holds_one(demo):
    config = demo.compose("train", ["trainer={deterministic: off, mode: on}"])
    assert (config.trainer.deterministic, config.trainer.mode, config.trainer.max_epochs) == (False, "on", 3)
    for word in ("maybe", "2", "[yes]"):
        with pytest.raises(UserError, match=r"trainer.deterministic=.* must be true or false"):
            demo.compose("train", [f"trainer={{deterministic: {word}}}"])


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("+augment={hflip: no}", "augment: no in augment.hflip: write false, or 'no' in quotes if the word is meant"),
        ("+x=[a, yes]", "x: yes in x.1: write true, or 'yes' in quotes if the word is meant"),
        ("+x={a: {b: [on]}}", "x: on in x.a.b.0: write true, or 'on' in quotes if the word is meant"),
    ],
)
def test_words_inside_what_the_config_does_not_hold_are_refused(demo, error_line, word, line):
    assert demo(["train", word]) == 2
    assert error_line() == line


def test_quoted_words_and_lists_of_text_are_text(demo):
    config = demo.compose("train", ["+x=['no', \"off\"]", "+y={a: 'yes'}", "+z=[1, true, abc]"])
    assert (list(config.x), config.y.a, list(config.z)) == (["no", "off"], "yes", [1, True, "abc"])
