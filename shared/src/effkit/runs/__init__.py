"""A run folder, opened: what was trained, on what, how its pictures were prepared, and where the weights are.

``run=RUN`` on a command line means all of that at once, so no group needs to be named beside it; a word that says
something else than the run is refused.
"""

from effkit.runs.records import (
    PREPROCESSING_FILE,
    WEIGHTS_FILE,
    Earlier,
    config_of,
    load_preprocessing,
    preprocessing_of,
    save_preprocessing,
)
from effkit.runs.run import Run
from effkit.runs.words import PICTURE_KEYS, given_words, refuse_words

__all__ = [
    "PICTURE_KEYS",
    "PREPROCESSING_FILE",
    "WEIGHTS_FILE",
    "Earlier",
    "Run",
    "config_of",
    "given_words",
    "load_preprocessing",
    "preprocessing_of",
    "refuse_words",
    "save_preprocessing",
]
