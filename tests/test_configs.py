"""Every config of every member composes: each command's primary config, and each option of each group it uses.

Configs are found by walking the folders and asking the commands, so a new file is tested without being listed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationToMissingValueError
from omegaconf.errors import OmegaConfBaseException as OmegaConfError

from effkit.cli.session import Session, parse_flags, session, task_config
from effkit.cli.targets import targets_of
from effkit.errors import UserError

# Filled in by Hydra when a job starts; configs may point at them.
JOB = ["hydra.runtime.output_dir=run", "hydra.job.num=0", "hydra.job.id=0"]


@contextmanager
def opened(app: Any, name: str) -> Iterator[Session]:
    """Open Hydra on one command."""
    flags = parse_flags(app.prog, [])
    with session(app.prog, name, app.config_module, app.commands[name].config_name, flags) as hydra:
        yield hydra


def choices(hydra: Session) -> set[str]:
    """Return the groups in a command's defaults, as the user overrides them (``model``, ``model@teacher``)."""
    return set(hydra.compose([]).hydra.runtime.choices)


def files(folder: Path) -> list[Path]:
    """Return all configs below a folder, as paths relative to it; a leading underscore marks a part of others."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*.yaml") if not path.name.startswith("_"))


def override_for(file: Path, groups: set[str]) -> list[str]:
    """Return the overrides that choose a file: its group is the longest part of its path that is one."""
    for depth in range(len(file.parts) - 1, 0, -1):
        group, option = "/".join(file.parts[:depth]), "/".join(file.with_suffix("").parts[depth:])
        if matching := [name for name in groups if name.split("@")[0] == group]:
            return [f"{name}={option}" for name in sorted(matching)]
    return []


def resolve(hydra: Session, overrides: list[str]) -> None:
    """Compose a command's config and fill in every interpolation."""
    config = hydra.compose([*overrides, *JOB])
    HydraConfig.instance().set_config(config)
    try:
        OmegaConf.to_container(task_config(config), resolve=True)
    finally:
        HydraConfig.instance().cfg = None


def failures(hydra: Session, label: str, choices_of_overrides: list[list[str]]) -> dict[str, str]:
    """Try each list of overrides; return what went wrong."""
    found = {}
    for overrides in choices_of_overrides:
        try:
            resolve(hydra, overrides)
        except InterpolationToMissingValueError:  # to a key that whoever runs it must give (???)
            continue
        except (UserError, OmegaConfError) as error:
            found[" ".join([label, *overrides])] = str(error)
    return found


def reaches_out(text: str) -> bool:
    """Whether a config changes more than its own node, so that it may fit one command and not another."""
    return "@package _global_" in text or "override /" in text


def test_every_option_of_every_command_composes(script, members):
    member, name = script
    app = member.load(name)
    assert app.config_module == f"{member.import_name}.configs"
    # A package's own file wins over the core's of the same name.
    options = {file: folder / file for folder in (members[0].configs, member.configs) for file in files(folder)}
    found: dict[str, str] = {}
    done: set[str] = set()
    for command in app.commands:
        with opened(app, command) as hydra:
            found |= failures(hydra, f"{name} {command}", [[]])
            if f"{name} {command}" in found:
                continue
            groups = choices(hydra)
            alone: list[list[str]] = []
            beside: dict[str, list[str]] = {}
            for file, path in sorted(options.items()):
                out = reaches_out(path.read_text(encoding="utf-8"))
                wanted = [override for override in override_for(file, groups) if out or override not in done]
                if out:
                    alone += [[override] for override in wanted]
                for override in () if out else wanted:
                    beside.setdefault(override.split("=")[0], []).append(override)
                done |= set(wanted)
            # Options that change their own node only are tried together, one of each group.
            together = [[o for o in row if o is not None] for row in zip_longest(*beside.values())]
            if failures(hydra, f"{name} {command}", together):  # which of them, or do two only exclude each other?
                found |= failures(hydra, f"{name} {command}", [[o] for row in together for o in row])
            found |= failures(hydra, f"{name} {command}", alone)
    assert found == {}


def test_every_group_is_used_by_a_command(members):
    """A folder of configs that no command's defaults name can be reached by nobody who does not know its path."""
    used: set[str] = set()
    for member in members:
        for name in member.scripts:
            app = member.load(name)
            for command in app.commands:
                with opened(app, command) as hydra:
                    used |= choices(hydra)
    unused = {
        str(member.configs / file)
        for member in members
        for file in files(member.configs)
        if len(file.parts) > 1 and not override_for(file, used)
    }
    assert unused == set()


def test_every_top_level_config_is_a_command_or_a_part_of_one(members):
    commands = {
        command.config_name
        for member in members
        for name in member.scripts
        for command in member.load(name).commands.values()
    }
    parts = set()
    for member in members:
        for file in member.configs.rglob("*.yaml"):
            defaults = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("defaults", [])
            parts |= {entry.split("@")[0].strip("/") for entry in defaults if isinstance(entry, str)}
    names = {file.stem for member in members for file in files(member.configs) if len(file.parts) == 1}
    assert names - commands - parts == set()


LAUNCHERS = ["basic", "joblib", "submitit_local", "submitit_slurm", "slurm", "slurm_gpu", "ray_local", "ray_cluster"]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_what_ships_names_nothing_that_is_refused(script, launcher):
    """Every command with every launcher; its options compose through the same check in the test above."""
    member, name = script
    app = member.load(name)
    for command in app.commands:
        with opened(app, command) as hydra:
            config = hydra.compose([f"hydra/launcher={launcher}"], RunMode.MULTIRUN)
            assert {"hydra.launcher._target_", "hydra.sweeper._target_"} <= set(targets_of(config))


def test_one_module_instantiates(members):
    """All else would pass by the check of what a config may name."""
    words = re.compile(r"hydra\.utils|import _locate|[^_]instantiate\(")
    found = {
        path.name for member in members for path in member.source.rglob("*.py") if words.search(path.read_text("utf-8"))
    }
    assert found == {"instantiate.py", "targets.py"}
