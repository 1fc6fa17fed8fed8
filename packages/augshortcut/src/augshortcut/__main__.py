"""``python -m augshortcut`` is the ``augshortcut`` command."""

from augshortcut.cli import main

main()
