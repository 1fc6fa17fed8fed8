"""``python -m shiftghost_sr`` is the ``shiftghost-sr`` command."""

from shiftghost_sr.cli import main

main()
