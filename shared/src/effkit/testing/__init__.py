"""What the packages' tests share: the tolerance rule, small real-looking data, console commands in a subprocess.

Tests cannot import each other (pytest's importlib mode), so whatever two test files need lives here.
"""

from effkit.testing.commands import CliResult, in_process, run_cli
from effkit.testing.images import tiny_images, write_image_folder
from effkit.testing.keys import unread_keys
from effkit.testing.launches import Launches, count_launches
from effkit.testing.mistakes import assert_one_line_mistake
from effkit.testing.papers import assert_installed, assert_rows_are_complete, compose_command, composed_commands
from effkit.testing.real import shared_data, unpack_cifar10
from effkit.testing.tolerance import assert_close_to_reference
from effkit.testing.workers import two_workers

__all__ = [
    "CliResult",
    "Launches",
    "assert_close_to_reference",
    "assert_installed",
    "assert_one_line_mistake",
    "assert_rows_are_complete",
    "compose_command",
    "composed_commands",
    "count_launches",
    "in_process",
    "run_cli",
    "shared_data",
    "tiny_images",
    "two_workers",
    "unpack_cifar10",
    "unread_keys",
    "write_image_folder",
]
