"""``python -m tnt_vit`` is the ``tnt-vit`` command."""

from tnt_vit.cli import main

main()
