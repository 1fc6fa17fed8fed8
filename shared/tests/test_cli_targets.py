"""effkit.cli.targets: a config that somebody sends runs no code, whatever it names and however it spells it."""

import pytest
from hydra.types import RunMode

from effkit.cli.session import parse_flags, session
from effkit.cli.targets import check_config
from effkit.errors import UserError

# What each would run: a file in the folder of the test is the evidence.
HUBCONF = "from pathlib import Path\nPath({evidence!r}).touch()\n\ndef model():\n    return 1\n"

SENT = {
    "a callback of Hydra that is a function": (
        "hydra: {{callbacks: {{x: {{_target_: torch.hub.load, repo_or_dir: {hub!r}, model: model, source: local}}}}}}",
        "hydra.callbacks.x._target_='torch.hub.load' is not allowed",
    ),
    "a callback that unpickles": (
        "hydra: {{callbacks: {{x: {{_target_: lightning.fabric.utilities.cloud_io._load, path_or_url: {pickle!r}, "
        "weights_only: false}}}}}}",
        "hydra.callbacks.x._target_='lightning.fabric.utilities.cloud_io._load' is not allowed",
    ),
    "an interpolation": (
        "word: os.system\nhydra: {{callbacks: {{x: {{_target_: '${{word}}', command: {touch!r}}}}}}}",
        "hydra.callbacks.x._target_='os.system' is not allowed",
    ),
    "an interpolated node": (
        "node: {{_target_: os.system, command: {touch!r}}}\nhydra: {{callbacks: {{x: '${{node}}'}}}}",
        "_target_='os.system' is not allowed",
    ),
    "a string from the environment": (
        "hydra: {{callbacks: {{x: {{_target_: '${{oc.env:SENT}}', command: {touch!r}}}}}}}",
        "hydra.callbacks.x._target_='os.system' is not allowed",
    ),
    "a string put together from the environment": (
        "hydra: {{callbacks: {{x: {{_target_: 'os.${{oc.env:SENT_END,system}}', command: {touch!r}}}}}}}",
        "hydra.callbacks.x._target_='os.system' is not allowed",
    ),
    "a string from the environment that is not there yet": (
        "hydra: {{callbacks: {{x: {{_target_: '${{oc.env:SET_LATER}}'}}}}}}",
        "hydra.callbacks.x._target_='${{oc.env:SET_LATER}}' has no value when the config is composed",
    ),
    "a node made by a resolver": (
        "hydra: {{callbacks: {{x: \"${{oc.create:{{_target_: os.system, command: '${{touch}}'}}}}\"}}}}\n"
        "touch: {touch!r}",
        "hydra.callbacks.x._target_='os.system' is not allowed",
    ),
    "a node made by a resolver from what Hydra knows later": (
        "hydra: {{callbacks: {{x: \"${{oc.create:{{_target_: os.system, command: '${{hydra:job.name}}'}}}}\"}}}}",
        "HydraConfig was not set",
    ),
    "a list": (
        "things: [1, {{_target_: os.system, command: {touch!r}}}]",
        "things.1._target_='os.system' is not allowed",
    ),
    "positional arguments": (
        "hydra: {{callbacks: {{x: {{_target_: hydra.experimental.callbacks.LogJobReturnCallback, "
        "_args_: [{{_target_: os.system, _args_: [{touch!r}]}}]}}}}}}",
        "hydra.callbacks.x._args_.0._target_='os.system' is not allowed",
    ),
    "a launcher": (
        "hydra: {{launcher: {{_target_: os.system}}}}",
        "hydra.launcher._target_='os.system' is not allowed",
    ),
    "a sweeper": (
        "hydra: {{sweeper: {{_target_: subprocess.run}}}}",
        "hydra.sweeper._target_='subprocess.run' is not allowed",
    ),
    "a logger": (
        "logger: {{_target_: os.system, command: {touch!r}}}",
        "logger._target_='os.system' is not allowed",
    ),
    "a handler of Python's logging": (
        "hydra: {{job_logging: {{handlers: {{console: {{(): os.system, command: {touch!r}}}}}}}}}",
        "hydra.job_logging.handlers.console.()='os.system' is not allowed",
    ),
    "a class of Python's logging": (
        "hydra: {{hydra_logging: {{handlers: {{console: {{class: subprocess.Popen}}}}}}}}",
        "hydra.hydra_logging.handlers.console.class='subprocess.Popen' is not allowed",
    ),
    "a stream of Python's logging": (
        "hydra: {{job_logging: {{handlers: {{console: {{stream: 'ext://antigravity.fly'}}}}}}}}",
        "hydra.job_logging.handlers.console.stream='ext://antigravity.fly' is not allowed",
    ),
    "a class method": (
        "x: {{_target_: effkit.runs.Run.open, path: .}}",
        "x._target_='effkit.runs.Run.open' is not allowed: it is no class",
    ),
    "a module that runs when it is imported": (
        "x: {{_target_: demo.__main__.main}}",
        "x._target_='demo.__main__.main' is not allowed: '__main__' is private",
    ),
    "a library behind ours": (
        "x: {{_target_: effkit.provenance.subprocess.Popen, args: [touch]}}",
        "x._target_='effkit.provenance.subprocess.Popen' is not allowed: it is defined in 'subprocess'",
    ),
    "a variable that loads code": (
        "hydra: {{job: {{env_set: {{PYTHONPATH: elsewhere}}}}}}",
        "hydra.job.env_set.PYTHONPATH is not allowed, set PYTHONPATH in the shell",
    ),
    "a config without end": (
        "a: {{b: '${{c}}'}}\nc: {{d: '${{a}}'}}",
        "the config is nested without end",
    ),
}


@pytest.fixture
def send(tmp_path, monkeypatch):
    """Write an experiment file somebody sends, beside all that it wants to run."""
    evidence = tmp_path / "it-ran"
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "hubconf.py").write_text(HUBCONF.format(evidence=str(evidence)))
    (tmp_path / "sent.pkl").write_bytes(f"cposix\nsystem\n(S'touch {evidence}'\ntR.".encode())
    places = {"hub": str(tmp_path / "hub"), "pickle": str(tmp_path / "sent.pkl"), "touch": f"touch {evidence}"}
    monkeypatch.setenv("SENT", "os.system")
    monkeypatch.delenv("SET_LATER", raising=False)

    def write(text):
        (tmp_path / "sent" / "experiment").mkdir(parents=True)
        file = tmp_path / "sent" / "experiment" / "new.yaml"
        file.write_text(f"# @package _global_\n{text.format(**places)}\n")
        return ["--config-dir", "sent", "experiment=new"]

    yield write
    assert not evidence.exists()


@pytest.mark.parametrize("name", SENT)
def test_a_config_somebody_sends_runs_nothing(demo, error_line, send, tmp_path, name):
    text, expected = SENT[name]
    assert demo(["train", *send(text)]) == 2
    assert expected.replace("{{", "{").replace("}}", "}") in error_line()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words", [["-m", "seed=0,1"], ["--cfg", "job"], ["--help"]])
def test_nor_does_it_in_a_sweep_or_where_it_is_only_shown(demo, error_line, send, words):
    text, expected = SENT["a callback of Hydra that is a function"]
    assert demo(["train", *words, *send(text)]) == 2
    assert expected in error_line()


def test_a_sweep_over_targets_is_refused_job_by_job(demo, capfd, tmp_path):
    words = ["build", "-m", "target._target_=demo.layers.Layer,os.getcwd"]
    assert demo(words) == 2
    assert "target._target_='os.getcwd' is not allowed" in capfd.readouterr().err


def test_the_command_line_is_held_to_the_same(demo, error_line, tmp_path):
    word = f"+hydra.callbacks.x={{_target_: os.system, command: 'touch {tmp_path / 'it-ran'}'}}"
    assert demo(["train", word]) == 2
    assert "hydra.callbacks.x._target_='os.system' is not allowed" in error_line()
    assert not (tmp_path / "it-ran").exists()


def test_callbacks_that_hydra_brings_run(demo, capfd, tmp_path):
    callback = "+hydra.callbacks.x._target_=hydra.experimental.callbacks.LogJobReturnCallback"
    assert demo(["train", callback]) == 0
    assert "Succeeded with return value" in capfd.readouterr().err


def test_what_an_interpolation_gave_is_what_is_built(demo, capfd, monkeypatch):
    """A variable that says something else when the job runs changes nothing any more."""
    monkeypatch.setenv("LAYER", "demo.layers.Layer")
    config = demo.compose("build", ["target._target_=${oc.env:LAYER}"])
    monkeypatch.setenv("LAYER", "os.getcwd")
    assert config.target._target_ == "demo.layers.Layer"


def test_values_that_hydra_fills_in_later_pass(demo):
    given = ["fail='${hydra:runtime.output_dir}'", "+a='${hydra.job.num}'", "+b='${oc.env:NOT_THERE}'"]
    assert demo.compose("train", [*given, "+c='${hydra.sweep.dir}/${hydra.job.id}'"]).seed == 0


SHELL = {
    "setup": ("setup: ['touch {evidence}']", "hydra.launcher.setup.0='touch "),
    "sbatch's parameters": ("additional_parameters: {{prolog: x}}", "hydra.launcher.additional_parameters.prolog='x'"),
    "a line in a text": ('comment: "a\\ntouch {evidence}"', "hydra.launcher.comment='a\\ntouch "),
    "a line in what a text refers to": ("comment: '${{lines}}'", "hydra.launcher.comment='${lines}'"),
    "an interpolation": ("setup: ['${{word}}']", "hydra.launcher.setup.0='${word}'"),
    "a list made by a resolver": ("setup: \"${{oc.create:['touch x']}}\"", "hydra.launcher.setup.0='touch x'"),
}


@pytest.fixture
def sent(tmp_path):
    """Experiment files with a node of the launcher, and an option of the group of its own."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    (tmp_path / "sent" / "experiment").mkdir(parents=True)
    (tmp_path / "sent" / "hydra" / "launcher").mkdir(parents=True)

    def write(launcher, more=""):
        text = f'# @package _global_\nword: touch x\nlines: "a\\nb"\nhydra: {{launcher: {{{launcher}}}{more}}}\n'
        (tmp_path / "sent" / "experiment" / "new.yaml").write_text(text)
        return ["-m", "seed=0", "hydra/launcher=submitit_slurm", "--config-dir", "sent", "experiment=new"]

    return write


@pytest.mark.parametrize("name", SHELL)
def test_shell_lines_of_a_launcher_that_a_file_names_are_refused(demo, error_line, sent, tmp_path, name):
    text, expected = SHELL[name]
    assert demo(["train", *sent(text.format(evidence=tmp_path / "it-ran"))]) == 2
    line = error_line()
    assert expected in line
    assert line.endswith(" runs in a shell and comes from a config file: give it on the command line")
    assert not (tmp_path / "runs").exists()


def test_nor_in_a_name_that_hydra_puts_there(demo, error_line, sent):
    assert demo(["train", *sent("partition: gpu", ', job: {name: "x\\ny"}')]) == 2
    assert "hydra.job.name='x\\ny' runs in a shell" in error_line()


def test_what_a_file_adds_to_what_was_typed_is_refused(demo, error_line, sent):
    words = [*sent("additional_parameters: {prolog: x}"), "+hydra.launcher.additional_parameters.mail=me"]
    assert demo(["train", *words]) == 2
    assert "hydra.launcher.additional_parameters.prolog='x'" in error_line()


def test_nor_in_a_launcher_of_their_own(demo, error_line, tmp_path, sent):
    own = tmp_path / "sent" / "hydra" / "launcher" / "own.yaml"
    own.write_text("defaults: [submitit_slurm]\nsetup: [echo]\n")
    assert demo(["train", "-m", "seed=0", "--config-dir", "sent", "hydra/launcher=own"]) == 2
    assert "hydra.launcher.setup.0='echo'" in error_line()


def test_shell_lines_on_the_command_line_and_plain_values_of_files_pass(demo, sent):
    words = [w for w in sent("partition: gpu, timeout_min: 5") if w not in ("-m", "seed=0")]
    flags = parse_flags("demo", [*words, "hydra.launcher.setup=['module load cuda']"])
    with session("demo", "train", "demo.configs", "train", flags) as hydra:
        launcher = hydra.compose(mode=RunMode.MULTIRUN).hydra.launcher
    assert (list(launcher.setup), launcher.partition, launcher.timeout_min) == (["module load cuda"], "gpu", 5)


def test_plain_dictionaries_are_checked_too():
    with pytest.raises(UserError, match=r"x\.y\.0\._target_='os\.system' is not allowed"):
        check_config({"x": {"y": [{"_target_": "os.system"}]}}, "demo")
