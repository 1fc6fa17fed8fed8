"""Training with Lightning: one module for classification, and ``train`` / ``evaluate`` from a composed configuration.

>>> from effkit.data import create_data
>>> from effkit.lightning import train
>>> metrics = train(cfg, model, create_data("digits"), folder=Path("runs/first"))      # doctest: +SKIP
"""

from effkit.lightning.callbacks import EpochLog, EpochSeed, RunCheckpoint, WeightEma
from effkit.lightning.classifier import Classifier
from effkit.lightning.evaluation import evaluate, evaluation_report
from effkit.lightning.logging import LOGGERS, CsvLogger, create_loggers, quiet_lightning
from effkit.lightning.metrics import MeanLoss, PercentCorrect
from effkit.lightning.optim import SCHEDULES, create_optimizer, create_scheduler
from effkit.lightning.resume import AtomicCheckpointIO, Resume, find_resume, load_checkpoint, network_state
from effkit.lightning.setup import build_trainer
from effkit.lightning.trained import TrainedModule
from effkit.lightning.trainer import train

__all__ = [
    "LOGGERS",
    "SCHEDULES",
    "AtomicCheckpointIO",
    "Classifier",
    "CsvLogger",
    "EpochLog",
    "EpochSeed",
    "MeanLoss",
    "PercentCorrect",
    "Resume",
    "RunCheckpoint",
    "TrainedModule",
    "WeightEma",
    "build_trainer",
    "create_loggers",
    "create_optimizer",
    "create_scheduler",
    "evaluate",
    "evaluation_report",
    "find_resume",
    "load_checkpoint",
    "network_state",
    "quiet_lightning",
    "train",
]
