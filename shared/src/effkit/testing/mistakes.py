"""How a command answers a mistake: one line that names the program, the value received and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable

from effkit.testing.commands import CliResult

__all__ = ["assert_one_line_mistake"]


def assert_one_line_mistake(program: str, result: CliResult | tuple[int, str, str], said: Iterable[str] = ()) -> None:
    """Assert that a command ended as a mistake of the user does: exit code 2, one line, no traceback.

    Args:
        program: The script's name, with which the line begins.
        result: Exit code, standard output and standard error.
        said: Words that the line must hold: the key, the value, what is allowed.

    Raises:
        AssertionError: If it did not; shows what was printed.
    """
    code, out, err = result
    assert code == 2, f"exit code {code}:\n{out}\n{err}"
    assert "Traceback" not in err, err
    lines = [line for line in err.strip().splitlines() if line.startswith(f"{program}: error:")]
    assert len(lines) == 1, f"expected one line '{program}: error: ...':\n{err}"
    absent = [word for word in said if word not in lines[0]]
    assert not absent, f"{lines[0]!r} does not say {', '.join(absent)}"
