"""Clusters that run already, SLURM and Ray: whether they answer, what they say of a job, how a process joins them.

No scheduler of our own: submitit and Ray do the work. Imports neither of them before it is asked to.
"""

from effkit.cluster.extras import library
from effkit.cluster.ray import joined
from effkit.cluster.slurm import check_slurm, outside_a_job, squeue, state_in_words, watch_queue

__all__ = ["check_slurm", "joined", "library", "outside_a_job", "squeue", "state_in_words", "watch_queue"]
