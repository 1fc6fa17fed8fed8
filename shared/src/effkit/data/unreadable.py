"""Many pictures of which some cannot be read: the others go on, and the end says which ones did not.

The rule of all commands that look at pictures one by one (predict, visualize, preview): what does not exist is refused
before the work; what turns out to be unreadable is left out, named at the end, and makes the exit code 1; where nothing
can be read, the first reason is the error. Training and evaluation refuse instead, unless ``data.skip_unreadable=true``
says that some may be missing: their figures are about all pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from effkit.data.pictures import UnreadablePicture

T = TypeVar("T")

__all__ = ["Unreadable"]

SHOWN = 3  # reasons in the one line; all of them are in the report's data


class Unreadable:
    """The pictures that could not be read.

    Attributes:
        reasons: Why, by name.
        seen: How many pictures there were, readable or not.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.seen = 0

    def read(self, sources: Iterable[str], read: Callable[[str], T]) -> list[tuple[str, T]]:
        """Read pictures, and keep the reason of each one that cannot be read.

        Args:
            sources: Files or names of bundled photographs.
            read: Reads one, see :func:`effkit.data.load_picture`.

        Returns:
            The readable ones with what was read, in their order.
        """
        found = []
        for source in sources:
            self.seen += 1
            try:
                found.append((source, read(source)))
            except (UnreadablePicture, OSError) as error:
                self.reasons[source] = str(error)
        return found

    @property
    def exit_code(self) -> int:
        """1 if a picture could not be read."""
        return int(bool(self.reasons))

    def check(self) -> None:
        """Refuse a whole that has no readable picture.

        Raises:
            UnreadablePicture: With the first reason, and how many more there are.
        """
        if self.reasons and len(self.reasons) == self.seen:
            more = f"; none of the {self.seen} pictures can be read" if self.seen > 1 else ""
            raise UnreadablePicture(next(iter(self.reasons.values())) + more)

    def lines(self) -> list[str]:
        """What to say at the end: nothing, or one line with the count and the first reasons."""
        if not self.reasons:
            return []
        reasons = list(self.reasons.values())
        more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
        return [f"{len(reasons)} of {self.seen} pictures cannot be read: {'; '.join(reasons[:SHOWN])}{more}"]
