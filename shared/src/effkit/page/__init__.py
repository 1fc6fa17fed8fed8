"""Pages: one self-contained HTML file each, readable on a phone, in the dark, on paper and by a screen reader.

Nothing is loaded from anywhere (a content security policy in the page says so): styles are inline, pictures are
embedded, all text is escaped.
"""

from effkit.page.document import html_page
from effkit.page.markup import BADGES, badge, flat, html_log, html_picture, html_tiles, readable_date
from effkit.page.tables import html_table

__all__ = [
    "BADGES",
    "badge",
    "flat",
    "html_log",
    "html_page",
    "html_picture",
    "html_table",
    "html_tiles",
    "readable_date",
]
