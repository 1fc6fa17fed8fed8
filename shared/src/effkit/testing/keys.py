"""Which keys of a command's config nothing uses: shown by running the command on values that note their use.

That a key's word stands somewhere in the source, or that a config is copied, printed to a file or compared as a whole,
is no evidence. So the values themselves are watched: each key holds a stand-in that may be handed around freely and
answers as its value does, but notes when it is asked for anything: compared, counted, formatted, called, told its type.
"""

from __future__ import annotations

import dataclasses
import operator
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effkit.cli import App
    from effkit.testing.commands import CliResult

__all__ = ["unread_keys"]

# Read by `effkit.cli` for every command, whatever its function does with the config.
_OF_THE_CORE = ("format", "overwrite")
# Modules and functions that hand values on, or keep the whole config as a record: nothing is read there.
_PASSING_MODULES = (
    *("omegaconf", "copy", "pickle", "yaml", "effkit.lightning.agreement", "effkit.runs.records"),
    *("lightning.pytorch.core.mixins", "lightning.pytorch.utilities.parsing", "lightning_utilities"),
)
_PASSING_FUNCTIONS = ("plain_options", "plain", "options")
# There values are held against annotations, which is no use of them.
_CHECKING = {("effkit.arguments", function) for function in ("check_arguments", "_fits", "<genexpr>")}
_BETWEEN = (__name__, "abc", "typing", "_collections_abc", "dataclasses")


class _AllRead(BaseException):
    """Nothing is left to be seen: the command need not run to its end."""


class _Node(dict[str, Any]):
    """A group's keys, by attribute too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class _Reads:
    """What has been read so far.

    Args:
        keys: What is to be read.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self.unread = set(keys)

    def note(self, key: str) -> None:
        """A value was used."""
        if key in self.unread and not _handed_on() and _asker() not in _CHECKING:
            self.unread.discard(key)
            if not self.unread:
                raise _AllRead


def _asker() -> tuple[str, str]:
    """Module and function of the code that asks."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "") in _BETWEEN:
        frame = frame.f_back
    return frame.f_globals.get("__name__", ""), frame.f_code.co_name


def _handed_on() -> bool:
    """Whether the code that asks only hands the value on."""
    module, function = _asker()
    return _within(module, _PASSING_MODULES) or (function in _PASSING_FUNCTIONS)


def _within(module: str, names: Iterable[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


class _Watched:
    """Stands for the value of a key."""

    def __init__(self, key: str, value: Any, reads: _Reads) -> None:
        vars(self).update(_key=key, _value=value, _reads=reads)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        if _handed_on():
            return _Watched
        return type(_used(self))

    def __getattr__(self, name: str) -> Any:
        return getattr(_used(self), name)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return operator.getitem, ([vars(self)["_value"]], 0)


def _used(watched: Any) -> Any:
    own = vars(watched) if type(watched) is _Watched else None
    if own is None:
        return watched
    own["_reads"].note(own["_key"])
    return own["_value"]


def _unwrapping(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(*values: Any) -> Any:
        return function(*map(_used, values))

    return method


def _reversed(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda right, left: function(_used(left), _used(right))


_ONE: dict[str, Callable[..., Any]] = {
    **{"__bool__": bool, "__int__": int, "__float__": float, "__str__": str, "__repr__": repr, "__hash__": hash},
    **{"__len__": len, "__iter__": iter, "__index__": operator.index, "__fspath__": lambda value: value.__fspath__()},
    **{"__neg__": operator.neg, "__abs__": abs, "__round__": round, "__format__": format},
    **{"__getitem__": operator.getitem, "__contains__": operator.contains},
    **{f"__{name}__": getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
}
for _name, _function in _ONE.items():
    setattr(_Watched, _name, _unwrapping(_function))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "or", "and"):
    _function = getattr(operator, f"{_name}_" if _name in ("or", "and") else _name)
    setattr(_Watched, f"__{_name}__", _unwrapping(_function))
    setattr(_Watched, f"__r{_name}__", _reversed(_function))


def _watch(config: Any, groups: Iterable[str], reads: _Reads | None) -> tuple[Any, list[str]]:
    """A copy of a config whose values are watched, and the keys: of groups the whole, else every value.

    Args:
        config: The composed config.
        groups: Keys of config groups; their options go to functions that refuse what they do not know.
        reads: Keys that have been read keep their plain value; `None` watches nothing.
    """
    from omegaconf import AnyNode, DictConfig, OmegaConf

    class Holder(AnyNode):
        def _value(self) -> Any:
            return self.__dict__["held"]

    keys: list[str] = []
    copy: Any = OmegaConf.create(OmegaConf.to_container(config, resolve=True), flags={"allow_objects": True})

    def visit(node: DictConfig, prefix: str) -> None:
        for name in list(node):
            key = f"{prefix}{name}"
            child: Any = node._get_node(name)
            if isinstance(child, DictConfig) and key not in groups and len(child):
                visit(child, f"{key}.")
                continue
            if key in _OF_THE_CORE:
                continue
            keys.append(key)
            if reads is not None and key in reads.unread:
                value = OmegaConf.to_container(child) if OmegaConf.is_config(child) else child._value()
                holder = Holder(None, parent=node)
                holder.__dict__["held"] = _Watched(key, _by_attribute(value), reads)
                node.__dict__["_content"][name] = holder

    visit(copy, "")
    return copy, keys


def _by_attribute(value: Any) -> Any:
    return _Node({k: _by_attribute(v) for k, v in value.items()}) if isinstance(value, dict) else value


def unread_keys(
    app: App, name: str, run: Callable[..., CliResult], *lines: Sequence[str], whole: Iterable[str] = ()
) -> list[str]:
    """The keys of a command that none of the command lines reads.

    A stand-in cannot be all that its value is (`None`, a number for a library written in C), so where the command fails
    after it has read something new, it is tried again with plain values in these places.

    Args:
        app: The program.
        name: The command.
        run: Runs the program, see `effkit.testing.in_process`.
        *lines: Words after the command; small sizes, and together all that it can do.
        whole: Nodes besides the groups that go as they are to something that refuses what it does not know.

    Raises:
        AssertionError: If a command line does not run.
    """
    command = app.commands[name]
    seen: list[_Reads] = []

    def task(config: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig

        units = {*HydraConfig.get().runtime.choices, *whole}
        if not seen:
            seen.append(_Reads(_watch(config, units, None)[1]))
        (reads,) = seen
        while reads.unread:
            before = set(reads.unread)
            try:
                return command.task(_watch(config, units, reads)[0])
            except _AllRead:
                break
            except Exception:
                if reads.unread == before:
                    raise
        return None

    app.commands[name] = dataclasses.replace(command, task=task)
    try:
        for words in lines:
            try:
                code, _, err = run(name, *words)
            except _AllRead:  # by what prints the report
                break
            assert code == 0, f"{name} {' '.join(words)}:\n{err}"
    finally:
        app.commands[name] = command
    return sorted(seen[0].unread)
