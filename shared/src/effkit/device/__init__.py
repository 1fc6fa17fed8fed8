"""Device, precision, seeds and threads of a run, and what loads on this machine and why the rest does not.

Commands take ``device=auto``, ``precision=auto``, ``seed`` and ``threads`` from their config and hand them to the four
functions of those names. Requests that this machine cannot meet raise; only ``auto`` chooses.
"""

from effkit.device.choose import (
    PRECISIONS,
    autocast,
    resolve_device,
    resolve_precision,
    seed_everything,
    set_threads,
)
from effkit.device.facts import environment
from effkit.device.optional import Backend, backends

__all__ = [
    "PRECISIONS",
    "Backend",
    "autocast",
    "backends",
    "environment",
    "resolve_device",
    "resolve_precision",
    "seed_everything",
    "set_threads",
]
