"""Who started this process: asked once, instead of by Lightning.

Lightning tries SLURM first, and where `srun` is merely on the path (every login node) it takes a command that runs on
this machine alone for a job that was started wrongly, and warns.
"""

from __future__ import annotations

import os
from typing import Any

from lightning.pytorch.plugins.environments import (
    LightningEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from effkit.errors import UserError

__all__ = ["check_nodes", "cluster_environment"]


def cluster_environment() -> Any:
    """Return Lightning's description of what started this process: torchrun, srun, LSF, MPI, or nobody."""
    if TorchElasticEnvironment.detect():  # first: it may run inside a job of SLURM
        return TorchElasticEnvironment()
    # A shell inside an allocation (salloc, srun --pty bash) has the variables too; what it starts is no task.
    if "SLURM_NTASKS" in os.environ and SLURMEnvironment.job_name() not in ("bash", "interactive"):
        return SLURMEnvironment()
    for kind in (LSFEnvironment, MPIEnvironment):
        if kind.detect():
            return kind()
    return LightningEnvironment()


def check_nodes(environment: Any, nodes: Any) -> None:
    """Refuse several nodes where nothing started processes on them: this one would wait for the others for ever.

    Args:
        environment: From :func:`cluster_environment`.
        nodes: ``trainer.num_nodes``.

    Raises:
        UserError: Says what can start them.
    """
    told = os.environ.get("MASTER_ADDR") and ("NODE_RANK" in os.environ or "GROUP_RANK" in os.environ)
    alone = isinstance(environment, LightningEnvironment) and not told
    if alone and isinstance(nodes, int) and nodes > 1:
        raise UserError(
            f"trainer.num_nodes={nodes}, but this process was started alone: start it by --multirun "
            "hydra/launcher=slurm, srun or torchrun, or tell each node NODE_RANK, MASTER_ADDR and MASTER_PORT"
        )
