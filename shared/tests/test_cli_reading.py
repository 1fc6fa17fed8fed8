"""The parser that reads what ships gives what OmegaConf's own gives."""

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from effkit.cli.reading import read_yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted({*ROOT.glob("shared/src/*/configs/**/*.yaml"), *ROOT.glob("packages/*/src/*/configs/**/*.yaml")})
TEXTS = [
    "a: 1e3\nb: 1_000\nc: .5\nd: 1e-3\ne: 0x10\nf: 010\ng: -.inf\nh: .nan_\n",
    "a: 2024-01-01\nb: 12:30:45\nc: yes\nd: 'no'\ne: ~\nf:\ng: ???\n",
    "a: &x {b: [1, two, 3.0]}\nc: *x\nd: |\n  lines\n  of text\ne: >\n  folded\n  text\n",
    "a: \"tab\\t\\u00e9\"\nb: {c: {d: 'it''s'}}\n? a key\n: pair\n",
    "# comment only\n",
    "- a\n- b: 1\n",
    "base: &base {x: 1}\nmore: {<<: *base, y: 2}\n",
    "${a}: ${b}\n'1': one\n2: two\ntrue: yes\n",
]


def theirs(text: str) -> object:
    return yaml.load(text, Loader=get_yaml_loader())


def test_all_that_ships() -> None:
    assert len(FILES) > 300
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        assert repr(read_yaml(text)) == repr(theirs(text)), file
        assert OmegaConf.create(read_yaml(text) or {}) == OmegaConf.load(file), file


@pytest.mark.parametrize("text", TEXTS)
def test_what_else_may_be_written(text: str) -> None:
    assert repr(read_yaml(text)) == repr(theirs(text))


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "a: [1, 2\n", "a: b: c\n", "\tx: 1\n", "a: !!python/name:os.path\n"])
def test_what_is_refused(text: str) -> None:
    for read in (read_yaml, theirs):
        with pytest.raises(yaml.YAMLError):
            read(text)


def test_libyaml_is_used() -> None:
    """Without it a command still runs, and starts more slowly."""
    assert yaml.__with_libyaml__
    assert "CParser" in {kind.__name__ for kind in type(yaml.load("{}", Loader=_spy())).__mro__}


def _spy() -> type:
    from effkit.cli.reading import _loader

    class Spy(_loader()):
        def get_single_data(self) -> object:
            return self

    return Spy
