"""A small program for the tests of `effkit.cli`; `test_cli.py` and `test_cli_processes.py` run it."""
