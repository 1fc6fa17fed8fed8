"""Commands that succeed, fail, print where they should not, wait, and train on two processes."""

import ctypes
import logging
import os
import signal
import time

from effkit.cli import App, build, run_dir
from effkit.errors import choose
from effkit.executors import Choice, Task, run

app = main = App("demo", "demo.configs", summary="A program for tests.")


def divide(by):
    """A task that fails."""
    return 1 / by


@app.command("train")
def train(cfg):
    """Pretend to train.

    Writes one file into the run folder.
    """
    from effkit.report import Report, Table

    assert cfg.trainer.max_epochs
    logging.getLogger(__name__).info("training with lr %s", cfg.solver.lr)
    (run_dir() / "weights.txt").write_text(str(cfg.solver.lr))
    if cfg.fail == "value":
        raise ValueError(f"epochs must be at least 1,\n got {cfg.trainer.max_epochs}")
    if cfg.fail == "choice":
        choose("data.name", "digit", ["digits", "cifar10"])
    if cfg.fail == "bug":
        int("ten")
    if cfg.fail == "file":
        (run_dir() / "missing.pt").read_bytes()
    if cfg.fail == "task":
        with Choice().open() as pool:
            list(run(pool, divide, [Task("shard 3 of 8", 0)]))
    if cfg.fail == "exit":
        raise SystemExit(5)
    if cfg.fail == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.fail == "library":
        import json

        json.loads("{")  # a ValueError that is not ours
    if cfg.sleep:
        (run_dir() / "sleeping").touch()
        time.sleep(cfg.sleep)
    table = Table("Result", ["lr"], [[cfg.solver.lr]])
    return Report("trained", [table], data={"lr": cfg.solver.lr}, exit_code=cfg.exit_code)


@app.command("show-all", positional="images")
def show_all(cfg):
    """Show images."""
    from effkit.report import Report

    return Report("shown", data={"images": list(cfg.images)}, lines=[f"{len(cfg.images)} images"])


@app.command("noisy")
def noisy(cfg):
    """Print on standard output in every way there is."""
    print("noise from Python")
    os.system("echo noise from a child")
    ctypes.CDLL(None).puts(b"noise from C")
    logging.getLogger(__name__).info("noise from logging")


@app.command("strict")
def strict(cfg):
    """Want a model and a name."""


@app.command("build")
def make(cfg):
    """Build what the config names."""
    from effkit.report import Report

    return Report("built", lines=[repr(build(cfg.target))])


@app.command("fit")
def fit(cfg):
    """Train on two processes."""
    import json

    import lightning
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from effkit.lightning import build_trainer, quiet_lightning
    from effkit.lightning.ranks import together
    from effkit.lightning.setup import own_settings
    from effkit.report import Report

    class Line(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.line = torch.nn.Linear(2, 1)

        def training_step(self, batch, index):
            (run_dir() / f"rank{self.global_rank}.started").write_text(str(os.getpid()))
            if self.global_rank == cfg.fail_rank:
                raise RuntimeError("this rank\nis broken")
            return (self.line(batch[0]) - batch[1]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=cfg.lr)

    x = torch.arange(16.0).reshape(8, 2)
    hardware = {"accelerator": "cpu", "devices": 2, "strategy": "ddp", "precision": "32-true"}
    with quiet_lightning(), own_settings():
        trainer = build_trainer({**hardware, "max_epochs": cfg.epochs, "enable_progress_bar": False}, run_dir())
        if os.environ.get("LOCAL_RANK", "0") != "0":
            (run_dir() / "starting").touch()
            time.sleep(cfg.sleep)
        with together(trainer, run_dir()):
            trainer.fit(Line(), DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4))
    facts = {"lr": cfg.lr, "rank": trainer.global_rank, "world": trainer.world_size, "steps": trainer.global_step}
    (run_dir() / f"rank{trainer.global_rank}.json").write_text(json.dumps(facts))
    return Report("fitted", data=facts, exit_code=1)
