"""Numbers of options, each in its range."""

from __future__ import annotations

from typing import Any

from effkit.errors import UserError

__all__ = ["number"]


def number(
    value: Any,
    field: str,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    most: float | None = None,
    whole: bool = False,
) -> Any:
    """Return a number in its range.

    Raises:
        UserError: If it is none, or out of range.
    """
    kind = "a whole number" if whole else "a number"
    bounds = [
        *([] if least is None else [f"of at least {least:g}"]),
        *([] if above is None else [f"above {above:g}"]),
        *([] if below is None else [f"below {below:g}"]),
        *([] if most is None else [f"of at most {most:g}"]),
    ]
    fits = not isinstance(value, bool) and isinstance(value, int if whole else int | float)
    fits = fits and (least is None or value >= least) and (above is None or value > above)
    if not (fits and (below is None or value < below) and (most is None or value <= most)):
        raise UserError(f"{field}={value!r} must be {' '.join([kind, ' and '.join(bounds)]).strip()}")
    return value
