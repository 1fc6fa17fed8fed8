"""What watches the keys of commands sees use, and only use; groups that only experiments may set are refused."""

import copy
import json

import pytest
from omegaconf import OmegaConf

from effkit.main import main as effkit
from effkit.report import Report
from effkit.testing import in_process, unread_keys

# Of the program for tests, whose `train` looks at some of its keys only.
UNREAD = ["device", "model", "precision", "resume", "seed", "threads"]
UNREAD += ["trainer.deterministic", "trainer.limits.train_batches", "trainer.mode"]


@pytest.fixture
def run(demo, tmp_path, monkeypatch, capfd):
    return in_process(demo, tmp_path, monkeypatch, capfd)


def test_keys_that_nothing_reads_are_found(demo, run):
    assert unread_keys(demo, "train", run, []) == UNREAD


def test_a_second_line_reads_what_the_first_does_not(demo, run):
    demo.command("probe", config="train")(lambda cfg: print(cfg.seed) if cfg.fail == "value" else None)
    assert "seed" in unread_keys(demo, "probe", run, [])
    assert "seed" not in unread_keys(demo, "probe", run, [], ["fail=value"])


def _as_is(cfg):
    plain = OmegaConf.to_container(cfg, resolve=True)
    return copy.deepcopy({**plain}), dict(plain), {key: cfg[key] for key in plain}, cfg.get("seed"), cfg.device


@pytest.mark.parametrize(
    ("look", "reads"),
    [
        (_as_is, []),
        (lambda cfg: OmegaConf.to_yaml(cfg), []),
        (lambda cfg: cfg.seed == 0, ["seed"]),
        (lambda cfg: f"{cfg.device}", ["device"]),
        (lambda cfg: int(cfg["seed"]), ["seed"]),
        (lambda cfg: bool(cfg.get("threads")), ["threads"]),
        (lambda cfg: isinstance(OmegaConf.to_container(cfg)["precision"], str), ["precision"]),
        (lambda cfg: dict(**cfg.model), ["model"]),
        (lambda cfg: cfg.trainer.mode.upper(), ["trainer.mode"]),
        (lambda cfg: {"plain": 1}[cfg.trainer.mode], ["trainer.mode"]),
        (lambda cfg: json.dumps(OmegaConf.to_container(cfg.trainer.limits), default=int), [UNREAD[-2]]),
    ],
)
def test_use_is_reading_and_handing_on_is_not(demo, run, look, reads):
    def probe(cfg):
        look(cfg)

    demo.command("probe", config="train")(probe)
    every = unread_keys(demo, "probe", run, [])
    assert set(UNREAD) - set(every) == set(reads)


def test_a_line_that_does_not_run_is_an_error(demo, run):
    with pytest.raises(AssertionError, match="epochs must be at least 1"):
        unread_keys(demo, "train", run, ["fail=value"])


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("list", []),
        ("doctor", []),
        ("reproduce", ["papers=[tnt-vit]", "claims=false", "jobs=1"]),
    ],
)
def test_every_key_of_the_core_is_read(name, line, tmp_path, monkeypatch, capfd):
    # The other two are read by the test below and by test_machines.py.
    assert set(effkit.commands) == {"bench", "compare-machines", "list", "doctor", "reproduce"}
    if name == "reproduce":
        pytest.importorskip("tnt_vit", reason="reproduces an installed paper")
    assert unread_keys(effkit, name, in_process(effkit, tmp_path, monkeypatch, capfd), line) == []


def test_every_key_of_the_bench_of_executors_is_read(tmp_path, monkeypatch, capfd):
    """Those of one of the two things it times, or of both."""
    run = in_process(effkit, tmp_path, monkeypatch, capfd)
    # What is timed there takes minutes; what it is handed is used as it would use it.
    monkeypatch.setattr("effkit.reproduce.speedup.speedup_report", lambda papers, **options: Report(str(options)))
    lines = [["overhead", "providers=[serial]", "tasks=2", "rounds=1", "workers=1"], ["reproduce"]]
    overhead, reproduce = (set(unread_keys(effkit, "bench", run, line)) for line in lines)
    assert overhead & reproduce == set()


@pytest.fixture
def probe(demo):
    """A command like the program's `train` that does not read the solver."""
    seen = []

    @demo.command("probe", config="train", unread=["solver"])
    def probe(cfg):
        """Look at keys."""
        seen.append(sorted(cfg))

    return seen


@pytest.mark.parametrize("word", ["solver=sgd", "solver.lr=3", "+solver.new=1", "~solver", "solver@x=sgd"])
def test_a_group_for_experiments_is_refused_on_the_command_line(demo, probe, error_line, word, tmp_path):
    assert demo(["probe", word]) == 2
    assert error_line() == f"demo probe does not read 'solver', which only an experiment may set: leave {word} out"
    assert list(tmp_path.iterdir()) == []


def test_an_experiment_may_set_it_and_the_command_does_not_see_it(demo, probe, capfd, tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults: [override /solver: sgd]\nsolver: {lr: 7}\n"
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text(text)
    assert demo(["probe", "--config-dir", "mine", "experiment=own"]) == 0
    assert "solver" not in probe[0]
    assert {"model", "seed"} <= set(probe[0])
    capfd.readouterr()
    assert demo(["probe", "--help"]) == 0
    assert "solver" not in capfd.readouterr().out
