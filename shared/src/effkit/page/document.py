"""The shell of a page: head, policy, look; nothing in it is loaded from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from effkit.page.style import STYLE

__all__ = ["html_page"]

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def html_page(title: str, body: Sequence[str]) -> str:
    """A whole page.

    Args:
        title: Of the window; not shown in the page itself.
        body: HTML in reading order, escaped already.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )
