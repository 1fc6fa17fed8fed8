"""``python -m kd_autoaug`` is the ``kd-autoaug`` command."""

from kd_autoaug.cli import main

main()
