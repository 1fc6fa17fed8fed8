"""``python -m ws_nas`` is the ``ws-nas`` command."""

from ws_nas.cli import main

main()
