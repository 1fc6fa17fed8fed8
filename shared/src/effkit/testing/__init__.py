"""What the packages' tests share: the tolerance rule, small real-looking data, console commands in a subprocess.

Tests cannot import each other (pytest's importlib mode), so whatever two test files need lives here.
"""

from effkit.testing.commands import CliResult, run_cli
from effkit.testing.images import tiny_images, write_image_folder
from effkit.testing.tolerance import assert_close_to_reference

__all__ = ["CliResult", "assert_close_to_reference", "run_cli", "tiny_images", "write_image_folder"]
