"""A small training, and the ways in which jobs end that a cluster runs."""

import os
import platform
import signal
import sys
import time

from effkit.cli import App

app = main = App("nodes", "nodes.configs", summary="A program for tests on clusters.")


@app.command("learn")
def learn(cfg):
    """Train on the digits; or fail, or die."""
    if cfg.ends == "killed":
        print("this job is about to die", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.ends == "value":
        raise ValueError("ends must be null,\n got 'value'")

    import torch
    from lightning.pytorch.callbacks import LambdaCallback

    from effkit.data import create_data
    from effkit.lightning import train
    from effkit.report import Report
    from effkit.testing.training import TinyNet

    torch.set_num_threads(1)
    torch.manual_seed(cfg.seed)
    data = create_data(**cfg.data)
    pause = LambdaCallback(on_train_epoch_start=lambda *_: time.sleep(cfg.pause))
    metrics = train(cfg, TinyNet(data.num_classes), data, callbacks=[pause])
    return Report("learnt", data={**metrics, "node": _node(), "where": os.getcwd()})


def _node():
    """Where this is: the node of Ray, of SLURM, or this machine."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        return ray.get_runtime_context().get_node_id()
    return os.environ.get("SLURMD_NODENAME", platform.node())
