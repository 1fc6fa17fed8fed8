"""Hydra, set up for one command of one program: search path, flags, composition, run or sweep.

`hydra.main` prints its errors itself and ends the process. This calls the same `Hydra` object the way `hydra.main` does
(hydra-core is pinned below 1.4 for it) and lets every exception out, so that `effkit.cli` words them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from effkit.cli.composing import put_together
from effkit.cli.copying import copied
from effkit.cli.explain import debugging, one_line, raised_by
from effkit.cli.mistakes import explain_composition
from effkit.cli.overrides import parsed
from effkit.cli.quicken import quicken
from effkit.cli.shell import check_shell
from effkit.cli.shipped import Known, Repository, known
from effkit.cli.targets import check_config
from effkit.cli.words import booleans_read
from effkit.errors import UserError, choose, nearest

SHARED_CONFIGS = "effkit.configs"
# Groups whose options speak of the whole config.
_GLOBAL_GROUPS = ("experiment", "debug")
# The config saved in a run folder holds the job only; running it again needs our places for output, not Hydra's.
_RERUN = (
    "hydra/job_logging=effkit",
    "hydra/hydra_logging=effkit",
    r"hydra.run.dir=runs/${hydra.job.name}/${now:%Y-%m-%d_%H-%M-%S_%f}",
    r"hydra.sweep.dir=runs/${hydra.job.name}/${now:%Y-%m-%d_%H-%M-%S_%f}_sweep",
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        flag = message.rpartition(" ")[2]
        options = [o for action in self._actions for o in action.option_strings]
        hint = nearest(flag, options) if flag.startswith("-") else None
        raise UserError(message + (f"; did you mean {hint!r}?" if hint else ""))


def parse_flags(program: str, words: Sequence[str]) -> argparse.Namespace:
    """Read Hydra's flags; everything else is in ``overrides``, in the order written and before or after flags.

    Raises:
        UserError: For an unknown flag, a flag without its value, or flags that exclude each other.
    """
    parser = _Parser(prog=program, parents=[get_args_parser()], add_help=False)
    flags = parser.parse_intermixed_args(list(words))
    modes = ("run", "multirun", "cfg", "info", "shell_completion", "hydra_help", "help")
    chosen = [f"--{name.replace('_', '-')}" for name in modes if getattr(flags, name)]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)} exclude each other, give one of them")
    if flags.resolve and not (flags.cfg or flags.help):
        raise UserError("--resolve goes with --cfg or --help only")
    if flags.package is not None and not flags.cfg:
        raise UserError(f"--package goes with --cfg only, got --package {flags.package}")
    if flags.experimental_rerun is not None:
        raise UserError("--experimental-rerun is not supported, use --config-path RUN/.hydra --config-name config")
    for name in ("config_dir", "config_path"):
        folder = getattr(flags, name)
        if folder is None or (name == "config_path" and folder.startswith("pkg://")):
            continue
        if not Path(folder).is_dir():
            raise UserError(f"--{name.replace('_', '-')} {folder!r} is no folder")
        setattr(flags, name, str(Path(folder).absolute()))
    return flags


def flags_for_ranks(flags: argparse.Namespace) -> list[str]:
    """The flags that every rank of a distributed job needs to compose the same config."""
    names = ("config_dir", "config_name", "config_path")
    given = [(f"--{name.replace('_', '-')}", getattr(flags, name)) for name in names]
    return [word for flag, value in given if value is not None for word in (flag, value)]


class _Loader(ConfigLoaderImpl):
    """Hydra's loader, which skips an option that does not exist where a defaults list says ``optional``.

    That is meant for files somebody may or may not have, not for a mistyped ``experiment=...``. And it refuses a config
    that names something to be called that it may not name: all that composes, workers of launchers too, passes here.

    Args:
        path: Where configs are looked for.
        package: Top-level package of the command.
    """

    def __init__(self, path: ConfigSearchPath, package: str) -> None:
        super().__init__(path)
        self.repository: Repository = Repository(path)
        self.package = package
        self._held: Any = None  # the config before the words of the command line change it
        self._places: IConfigRepository = self.repository  # and where it was looked for, `hydra.searchpath` included

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        def load(overrides: list[str]) -> DictConfig:
            return super(_Loader, self).load_configuration(
                config_name, overrides, run_mode, from_shell, validate_sweep_overrides
            )

        config = load(overrides)
        # A copy, because to look a value up may keep it; without Hydra's node, which is most of it.
        if overrides and (read := booleans_read(overrides, copied(self._held, without="hydra"))) != overrides:
            config = load(read)
        for group, option in chosen_options(config).items():
            if isinstance(option, str) and f"{group}={option}" in overrides:
                folder = group.partition("@")[0]
                if not self._places.config_exists(f"{folder}/{option}"):  # listing them takes far longer
                    choose(group, option, self.options(folder))
        _check_global(config)
        check_config(config, self.package)
        check_shell(config)
        return config

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], Any]:
        words = parsed(overrides)
        shipped = known(self.repository)
        if shipped is not None and not _searches_elsewhere(shipped, config_name, words):
            self._places = shipped
        else:
            self._places = plain = CachingConfigRepository(self.repository)
            self._process_config_searchpath(config_name, words, plain)
        return words, self._places

    def _compose_config_from_defaults_list(self, defaults: Any, repo: Any) -> DictConfig:
        own = functools.cache(lambda: CachingConfigRepository(self.repository))
        self._held = None
        if isinstance(repo, Known):
            with contextlib.suppress(Exception):  # Hydra words below what does not fit
                self._held = put_together(repo, defaults, lambda part: self._load_single_config(part, own()).config)
        if self._held is None:
            plain = own() if isinstance(repo, Known) else repo
            self._held = super()._compose_config_from_defaults_list(defaults, plain)
        return copied(self._held)

    def options(self, group: str) -> list[str]:
        """Options of a config group, those in sub-folders as ``folder/option``; empty if there is no such group."""
        # Of the files as they are: Hydra's own method composes nothing for this, but copies all that it would need to.
        found = list(self._places.get_group_options(group, ObjectType.CONFIG))
        for folder in self._places.get_group_options(group, ObjectType.GROUP):
            found += [f"{folder}/{option}" for option in self.options(f"{group}/{folder}")]
        return sorted(found)


def _searches_elsewhere(shipped: IConfigRepository, config_name: str | None, words: Sequence[Override]) -> bool:
    """Whether Hydra adds places to look in, or the primary config is none that could say so."""
    if any(word.get_key_element() == "hydra.searchpath" for word in words):
        return True
    primary = None if config_name is None else shipped.load_config(config_name)
    if primary is None:
        return False
    config = primary.config
    return not isinstance(config, DictConfig) or OmegaConf.select(config, "hydra.searchpath") is not None


def _check_global(config: DictConfig) -> None:
    """Refuse files of the groups that change a whole config, if they would change a node that nothing reads."""
    choices = chosen_options(config)
    for group in _GLOBAL_GROUPS:
        lost = config.get(group)
        if choices.get(group) is not None and isinstance(lost, DictConfig) and lost:
            raise UserError(
                f"{group}={choices[group]}: its file does not begin with the line '# @package _global_', "
                f"so that {', '.join(map(str, lost))} would change nothing: add the line"
            )


_keeps_folder: dict[tuple[str, str], bool] = {}


class Session:
    """One command's Hydra.

    Args:
        program: The program's name.
        command: The command's name; it becomes ``hydra.job.name``.
        config_module: Package that holds the primary configs.
        config_name: Primary config.
        flags: From `parse_flags`.
    """

    def __init__(
        self, program: str, command: str, config_module: str, config_name: str, flags: argparse.Namespace
    ) -> None:
        self.program = f"{program} {command}"
        self.config_name = flags.config_name or config_name
        self.own = list(_RERUN if flags.config_path is not None else ())
        self.overrides = [*self.own, *flags.overrides]
        # What ships with a package stays as it is for as long as a process lives.
        own_files = flags.config_path is not None or flags.config_dir is not None
        self.shipped = None if own_files or self.own else (config_module, self.config_name)
        version.setbase("1.3")
        quicken()
        path = create_config_search_path(flags.config_path or f"pkg://{config_module}")
        before_schema = SearchPathQuery(provider="schema")
        if flags.config_dir is not None:
            path.prepend("command-line", f"file://{flags.config_dir}", before_schema)
        if config_module != SHARED_CONFIGS:  # behind the package's own, which win where both have a file
            path.prepend("effkit", f"pkg://{SHARED_CONFIGS}", before_schema)
        self.loader = _Loader(path, config_module.split(".")[0])
        self.hydra = Hydra(task_name=command, config_loader=self.loader)
        GlobalHydra.instance().initialize(self.hydra)

    def compose(self, overrides: Sequence[str] | None = None, mode: RunMode = RunMode.RUN) -> DictConfig:
        """Compose the command's config with the node ``hydra``.

        Raises:
            UserError: If the overrides do not fit the configs; says what would.
        """
        with self._errors_in_one_line():
            return self._compose(self.overrides if overrides is None else overrides, mode)

    def _compose(self, overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        return self.hydra.compose_config(
            self.config_name, list(overrides), mode, validate_sweep_overrides=mode == RunMode.RUN
        )

    def peek(self) -> DictConfig | None:
        """The config before the jobs of a sweep are told apart; `None` where composing fails (it will again)."""
        try:
            return self._compose(self.overrides, RunMode.MULTIRUN)
        except Exception:
            return None

    def keeps_folder(self) -> bool:
        """Whether the command keeps a run folder, whatever a command line says of the folder `.hydra` in it."""
        if self.shipped is not None and self.shipped in _keeps_folder:
            return _keeps_folder[self.shipped]
        with self._errors_in_one_line():
            keeps = self._compose(self.own, RunMode.MULTIRUN).hydra.output_subdir is not None
        if self.shipped is not None:
            _keeps_folder[self.shipped] = keeps
        return keeps

    def shows(self, flags: argparse.Namespace) -> bool:
        """Print what ``--cfg``, ``--info`` or ``--hydra-help`` ask for; `False` if none of them is there."""
        with self._errors_in_one_line():
            if flags.cfg:
                self.hydra.show_cfg(self.config_name, self.overrides, flags.cfg, flags.package, flags.resolve)
            elif flags.info:
                self.hydra.show_info(flags.info, self.config_name, self.overrides)
            elif flags.hydra_help:
                self.hydra.hydra_help(self.config_name, get_args_parser(), flags)
            else:
                return False
        return True

    def launch(self, job: Callable[[DictConfig], Any], multirun: bool, extra: Sequence[str] = ()) -> list[Any]:
        """Run one job, or all jobs of a sweep through the configured sweeper and launcher.

        Returns:
            What ``job`` returned, per job.

        Raises:
            UserError: If no config can be composed.
        """
        mode = "MULTIRUN" if multirun else "RUN"
        overrides = [*self.overrides, *extra, f"hydra.mode={mode}"]
        with self._errors_in_one_line():  # of composition, run folder and log file: a job keeps its errors to itself
            if not multirun:
                return [self.hydra.run(self.config_name, job, overrides).return_value]
            batches = self.hydra.multirun(self.config_name, job, overrides)
        if not isinstance(batches, list):
            return []
        return [done.return_value for batch in batches for done in batch]

    @contextlib.contextmanager
    def _errors_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if debugging():
                raise
            line = (
                f"hydra/launcher: {one_line(error)}"
                if raised_by(error, ("submitit",)) or type(error).__name__ == "TerminatedWorkerError"
                else explain_composition(error, self.program, self.overrides, self.loader.options, self._compose)
            )
            if line is None:
                raise
            raise UserError(line) from error

    def groups(self) -> dict[str, list[str]]:
        """All config groups that are not Hydra's own, with their options."""
        names = [g for g in self.loader.list_groups("") if g != "hydra"]
        return {g: self.loader.options(g) for g in sorted(names)}


@contextlib.contextmanager
def session(
    program: str, command: str, config_module: str, config_name: str, flags: argparse.Namespace
) -> Iterator[Session]:
    """Open a `Session`, and put Hydra's global objects back as they were afterwards (a notebook may be using them)."""
    instance, running = GlobalHydra.instance(), HydraConfig.instance()
    before, config_before = instance.hydra, running.cfg
    instance.clear()
    try:
        yield Session(program, command, config_module, config_name, flags)
    finally:
        instance.hydra, running.cfg = before, config_before


def chosen_options(config: DictConfig) -> dict[str, Any]:
    """The option of each config group, "???" where one must be given; of Hydra's own groups too."""
    choices: Any = OmegaConf.to_container(config.hydra.runtime.choices, resolve=False)
    return choices


def task_config(config: DictConfig) -> DictConfig:
    """The part of a composed config that the command sees."""
    with open_dict(config):
        del config["hydra"]
    OmegaConf.set_readonly(config, False)
    return config
