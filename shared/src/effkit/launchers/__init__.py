"""Jobs of a sweep (``--multirun``) on SLURM and on Ray: ``hydra/launcher=slurm|slurm_gpu|ray_local|ray_cluster``.

Hydra's own launchers give up a whole sweep where one of its jobs is lost. Here every job has an answer: what it
returned, or what is known of how it ended.
"""

from effkit.launchers.sweep import Sweep

__all__ = ["Sweep"]
