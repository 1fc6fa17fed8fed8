"""``python -m greedy_enlarge`` is the ``greedy-enlarge`` command."""

from greedy_enlarge.cli import main

main()
