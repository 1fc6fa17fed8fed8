"""Whether values from a config are of the kind that a function's annotations ask for.

Keys of a config are the names of arguments, so the annotations say what may stand there. Without this, a word in place
of a number is found in the middle of the work, by whatever library stumbles over it first.
"""

from __future__ import annotations

import enum
import functools
import inspect
import math
import os
import re
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import PurePath
from typing import Any, Literal, Union, get_args, get_origin

from effkit.errors import UserError, written

__all__ = ["check_arguments", "foreign", "input_file", "named_below", "named_path", "renamed"]

# What constructors raise for values they cannot take; not what the operating system says about files.
_OF_VALUES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError),
    *(RuntimeError, TypeError, ValueError),
)
_LISTS: tuple[Any, ...] = (list, tuple, Sequence, Collection, Iterable)
_MAPPINGS: tuple[Any, ...] = (dict, Mapping)
_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "text", types.NoneType: "null"}
_MANY = {bool: "booleans", int: "whole numbers", float: "numbers", str: "words"}


def check_arguments(
    function: Callable[..., Any], values: Mapping[str, Any], prefix: str = "", *, also: Collection[str] = ()
) -> None:
    """Refuse values that are not of the kind that a function's arguments are annotated with.

    A number is no truth value, a boolean and a text are no numbers, a text is no list of its letters, and NaN is
    nothing. Ranges are the function's own matter; so are annotations that name no plain kind.

    Args:
        function: A function or a class.
        values: Keyword arguments, plain values from a config; names that the function does not have are left alone.
        prefix: What stands before the names on a command line, e.g. ``"model."``.
        also: Names that may be null beyond what the annotations say, because null is left out before the call.

    Raises:
        UserError: Naming the first argument that does not fit, its value and what is expected.

    Example:
        >>> def crop(size: int | tuple[int, int], flip: bool = False): ...
        >>> check_arguments(crop, {"size": [224, 192], "flip": True})
        >>> check_arguments(crop, {"size": "large"})
        Traceback (most recent call last):
        ...
        effkit.errors.UserError: size='large' must be a whole number or 2 whole numbers [a, b]
    """
    kinds = _kinds(function)
    for name, value in values.items():
        kind = kinds.get(name)
        if kind is None or (isinstance(value, types.NoneType) and name in also) or _fits(value, kind):
            continue
        raise UserError(f"{prefix}{name}={written(value)} must be {_words(kind)}")


@contextmanager
def renamed(keys: Mapping[str, str]) -> Iterator[None]:
    """Let errors about arguments name the keys that the user writes, where those have other names.

    Args:
        keys: Argument -> key, e.g. ``{"depth": "model.depth"}``. A line that begins with an argument, or has it before
            an equals sign outside quotes, gets the key there.

    Raises:
        UserError: As was raised inside, in the user's words.
    """
    try:
        yield
    except UserError as error:
        if type(error) is not UserError or not keys:
            raise
        listed = "|".join(re.escape(name) for name in sorted(keys, key=len, reverse=True))
        found = re.compile(rf"'[^']*'|^(?:{listed})(?![\w.])|(?<![\w.])(?:{listed})(?==)")
        line = found.sub(lambda m: keys.get(m[0], m[0]), str(error))
        if line == str(error):
            raise
        raise UserError(line) from error


def named_below(prefix: str, names: Iterable[str]) -> AbstractContextManager[None]:
    """Let errors name arguments with what stands before them on a command line: ``depth=0`` as ``model.depth=0``.

    Args:
        prefix: E.g. ``"model."``.
        names: The arguments; see :func:`renamed`.
    """
    return renamed({name: f"{prefix}{name}" for name in names})


@contextmanager
def foreign(what: str) -> Iterator[None]:
    """Let a library's own errors about values that a user chose be one line that says what it was given.

    For constructors of other people, whose arguments nobody here knows the ranges of. Around nothing else: inside it a
    bug of ours would look like a mistake of the user.

    Args:
        what: What was to be made of which values, e.g. ``"model.name=vit_tiny with num_heads=5"``.

    Raises:
        UserError: In place of any error that wrong values cause; ours pass as they are.
    """
    try:
        yield
    except UserError:
        raise
    except _OF_VALUES as error:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{what}: {said}") from error


def input_file(field: str, value: Any) -> str:
    """The path of a file to read that a key holds.

    Args:
        field: The key, for the message.
        value: What it holds, not null.

    Raises:
        UserError: If it is empty, no text, or there is no such file.
    """
    path = os.path.expanduser(named_path(field, value))
    if not os.path.isfile(path):
        raise UserError(f"{field}={path!r} " + ("is no file" if os.path.exists(path) else "does not exist"))
    return path


def named_path(field: str, value: Any) -> str:
    """The path that a key holds.

    Args:
        field: The key, for the message.
        value: What it holds, not null.

    Raises:
        UserError: If it is empty, or no text.
    """
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{field}={written(value)} must be a path")
    if not os.fspath(value):
        raise UserError(f"{field}= is empty: give a path, or leave {field}= out")
    return os.fspath(value)


@functools.lru_cache(maxsize=128)
def _kinds(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations by name, those that can be evaluated: some name types that are only imported for a type checker."""
    if not isinstance(function, type):
        return _annotations(function)
    found: dict[str, Any] = {}
    for parent in function.__mro__:
        if "__init__" in parent.__dict__:
            found = {**_annotations(parent.__dict__["__init__"]), **found}
            body = inspect.unwrap(parent.__dict__["__init__"])
            if not getattr(getattr(body, "__code__", None), "co_flags", 0) & inspect.CO_VARKEYWORDS:
                break  # else the rest is an argument of the parent
    return found


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    body = inspect.unwrap(function)
    names, found = getattr(body, "__globals__", {}), {}
    for name, annotation in getattr(body, "__annotations__", {}).items():
        try:
            found[name] = eval(annotation, names) if isinstance(annotation, str) else annotation
        except Exception:
            continue
    found.pop("return", None)
    return found


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return any(value.__class__ is type(one) and value == one for one in inner)
    if kind is Any or kind is object:
        return True
    if kind is None or kind is types.NoneType:
        return isinstance(value, types.NoneType)
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if kind is str:
        return isinstance(value, str)
    if _is_path(origin or kind):
        return isinstance(value, str | os.PathLike)
    if (origin or kind) in _LISTS:
        if not isinstance(value, list | tuple):
            return False
        if origin is tuple and inner and inner[-1] is not Ellipsis:
            return len(value) == len(inner) and all(map(_fits, value, inner))
        return all(_fits(one, inner[0]) for one in value) if inner else True
    if (origin or kind) in _MAPPINGS:
        return isinstance(value, Mapping)
    if isinstance(kind, type) and not issubclass(kind, enum.Enum) and not _is_protocol(kind):
        return isinstance(value, kind)
    return True  # nothing that a config could be measured by


def _is_protocol(kind: type) -> bool:
    return bool(getattr(kind, "_is_protocol", False))


def _is_path(kind: Any) -> bool:
    return isinstance(kind, type) and (kind is os.PathLike or issubclass(kind, PurePath))


def _words(kind: Any) -> str:
    """What is expected, in words; a path and a text are one thing to whoever writes a config."""
    ones = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    paths = any(_is_path(get_origin(one) or one) for one in ones)
    said = list(dict.fromkeys(word for one in ones if not (paths and one is str) and (word := _word(one))))
    return " or ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said) or f"a {kind}"


def _word(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}" if len(inner) > 1 else repr(inner[0])
    if kind in _PLAIN:
        return _PLAIN[kind]
    if _is_path(origin or kind):
        return "a path"
    if (origin or kind) in _LISTS:
        if origin is tuple and inner and inner[-1] is not Ellipsis:
            letters = ", ".join("abcdefgh"[: len(inner)])
            return f"{len(inner)} {_MANY.get(inner[0], 'values')} [{letters}]"
        return f"a list of {_MANY.get(inner[0], 'values')}" if inner else "a list"
    return "a mapping of keys and values" if (origin or kind) in _MAPPINGS else ""
