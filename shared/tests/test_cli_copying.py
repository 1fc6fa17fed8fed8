"""Configs are composed once and copied after that; a copy is what OmegaConf's own would be, and nobody else's."""

import copy
import pickle
import subprocess
import sys
from dataclasses import fields
from enum import Enum

import pytest
from omegaconf import Container, OmegaConf

from effkit.cli import copying, shipped
from effkit.cli.copying import copied, quicken_copies
from effkit.cli.session import parse_flags, session
from effkit.cli.shipped import Known
from effkit.errors import UserError


def facts(node):
    """All that a node is, down to its leaves."""
    state = node.__dict__
    metadata = {field.name: getattr(state["_metadata"], field.name) for field in fields(state["_metadata"])}
    rest = {name: state[name] for name in state if name not in ("_metadata", "_content", "_parent", "_flags_cache")}
    content = state.get("_content")
    if isinstance(content, dict):
        content = {key: facts(child) for key, child in content.items()}
    elif isinstance(content, list):
        content = [facts(child) for child in content]
    return type(node), metadata, rest, content


def parents_are_right(node):
    content = node.__dict__.get("_content")
    children = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return all(child.__dict__["_parent"] is node and parents_are_right(child) for child in children)


class Colour(Enum):
    RED = 1


VALUES = {
    "all": {1: b"x", "e": Colour.RED, "f": 0.5, "n": None, "missing": "???", "list": [1, [2, {"a": "${f}"}]]},
    "empty": {},
    "none": None,
    "interpolation": "${all}",
}
NESTED = {"a": {"b": [1, "${c}", None]}, "c": "${a}"}


@pytest.fixture(params=["values", "composed"])
def config(request, demo):
    if request.param == "values":
        made = OmegaConf.create(VALUES)
        OmegaConf.set_readonly(made.all, True)
        OmegaConf.set_struct(made, True)
        return made
    with session("demo", "train", "demo.configs", "train", parse_flags("demo train", [])) as hydra:
        return hydra.compose()


def test_a_copy_is_what_omegaconf_makes(config):
    wanted = copy.deepcopy(config)
    copy_of_it = copied(config)
    assert facts(copy_of_it) == facts(wanted) == facts(config)
    assert parents_are_right(copy_of_it)
    assert copy_of_it.__dict__["_parent"] is None
    assert copy_of_it == config


def test_copies_by_the_library_itself_stay_the_same():
    """Held against those of a process in which nobody made them quick."""
    script = (
        "import copy, pickle, sys\n"
        "from omegaconf import OmegaConf\n"
        "from omegaconf.base import Metadata\n"
        "assert not hasattr(Metadata, '__deepcopy__')\n"
        f"made = OmegaConf.create({NESTED!r})\n"
        "OmegaConf.set_readonly(made.a, True)\n"
        "sys.stdout.buffer.write(pickle.dumps((made, copy.deepcopy(made))))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    made, theirs = pickle.loads(done.stdout)
    quicken_copies()
    assert facts(copy.deepcopy(made)) == facts(theirs) == facts(copied(made))


def test_what_is_done_to_a_copy_stays_there(config):
    before = facts(config)
    mine = copied(config)
    OmegaConf.set_struct(mine, False)
    mine.new = 1
    OmegaConf.set_readonly(mine, True)
    for key in list(mine):
        if isinstance(mine._get_node(key), Container):
            OmegaConf.set_struct(mine._get_node(key), True)
    assert facts(config) == before


def test_a_part_is_copied_where_it_stands_and_a_key_can_be_left_out():
    made = OmegaConf.create(VALUES)
    part = copied(made.all)
    assert part.__dict__["_parent"] is made
    rest = copied(made, without="all")
    assert list(rest) == ["empty", "none", "interpolation"]
    assert parents_are_right(rest)
    assert parents_are_right(made)
    assert list(made) == list(VALUES)


def test_what_omegaconf_may_hold_tomorrow_is_copied_by_itself(monkeypatch):
    monkeypatch.setattr(copying, "_KNOWN", False)
    made = OmegaConf.create(VALUES)
    assert facts(copied(made)) == facts(made)
    assert list(copied(made, without="all")) == ["empty", "none", "interpolation"]


@pytest.fixture
def merged(monkeypatch):
    """The configs that are merged, in their order."""
    done = []
    part = Known.part

    def noted(self, key, load):
        done.append(key[0])
        return part(self, key, load)

    monkeypatch.setattr(Known, "part", noted)
    monkeypatch.setattr(shipped, "_known", {})
    return done


def test_a_command_puts_its_config_together_once(demo, merged):
    first = demo.compose("train")
    count = len(merged)
    assert merged.count("train") == 1
    assert demo.compose("train", ["seed=7"]).seed == 7
    assert demo.compose("train", ["+more.a=1", "seed=3"]).more.a == 1
    assert demo.compose("train") == first
    assert len(merged) == count


def test_other_options_are_put_together_too_and_what_is_hydras_is_not(demo, merged):
    demo.compose("train")
    hydras = [name for name in merged if name.startswith("hydra/")]
    merged.clear()
    demo.compose("train", ["solver=sgd"])
    assert "solver/sgd" in merged
    assert not set(hydras) & set(merged)
    merged.clear()
    demo.compose("train", ["hydra/job_logging=none"])
    assert "hydra/job_logging/none" in merged


def test_what_somebody_brings_along_is_not_kept(demo, merged, tmp_path):
    (tmp_path / "own" / "solver").mkdir(parents=True)
    file = tmp_path / "own" / "solver" / "mine.yaml"
    for words in (["--config-dir", str(tmp_path / "own")], [f"hydra.searchpath=[file://{tmp_path / 'own'}]"]):
        flags = parse_flags("demo train", [*words, "solver=mine"])
        for number in (1, 2):
            file.write_text(f"lr: {number}\n")
            with session("demo", "train", "demo.configs", "train", flags) as hydra:
                assert hydra.compose().solver.lr == number
    assert merged == []


WORDS = [[], ["solver=sgd"], ["hydra/launcher=slurm"], ["hydra/job_logging=none"], ["+more=1", "~solver"]]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
@pytest.mark.parametrize("command", ["train", "fit", "show-all", "build"])
def test_the_config_is_what_hydra_puts_together(demo, monkeypatch, command, words):
    """To the last flag and type."""

    def composed():
        with session("demo", command, "demo.configs", command.replace("-", "_"), parse_flags("demo", words)) as hydra:
            try:
                config = hydra.compose()
            except UserError as error:
                return str(error)
        OmegaConf.clear_cache(config)  # of the time
        return config

    ours, again = composed(), composed()
    monkeypatch.setattr("effkit.cli.session.known", lambda repository: None)
    theirs = composed()
    if isinstance(theirs, str):
        assert ours == again == theirs
    else:
        assert facts(ours) == facts(again) == facts(theirs)
