"""Imported right after torch, once: what a task that imports torch draws is that of a task that found it there."""

from effkit.executors.seeding import seed_new_torch

seed_new_torch()
