"""``python -m esa_attention`` is the ``esa-attention`` command."""

from esa_attention.cli import main

main()
