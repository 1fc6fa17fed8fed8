"""Table 3, the ImageNet recipe: what the paper and its official command say, beside ``experiment=imagenet/tnt_s``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from effkit.cli import compose
from effkit.rows import Row

__all__ = ["EXPERIMENT", "RECIPE", "recipe_config", "recipe_rows"]

EXPERIMENT = "imagenet/tnt_s"
RECIPE_TABLE = "Table 3"
COMMAND = "official training command"
EVALUATION = "official evaluation code"


@cache
def recipe_config() -> Any:
    """The composed config of ``tnt-vit train experiment=imagenet/tnt_s``; nothing is read but the configs."""
    return compose("tnt-vit", "tnt_vit.configs", "train", [f"experiment={EXPERIMENT}"])


def _policy(key: str) -> float:
    """A number of timm's RandAugment string: ``m9`` is the magnitude 9."""
    parts = str(recipe_config().data.augment.auto_augment).split("-")[1:]
    return next(float(p.removeprefix(key)) for p in parts if p.removeprefix(key).replace(".", "", 1).isdigit())


def _resize() -> int:
    """Shorter side to which evaluation resizes before the centre crop."""
    data = recipe_config().data
    return int(data.image_size / data.crop_pct)


class Setting(NamedTuple):
    """One number of the recipe: its name, the value given, where, and how to read ours from the config."""

    name: str
    value: float
    source: str
    ours: Callable[[Any], float]


RECIPE = (
    Setting("epochs", 300, RECIPE_TABLE, lambda c: c.trainer.max_epochs - c.scheduler.cooldown_epochs),
    Setting("batch size", 1024, RECIPE_TABLE, lambda c: c.data.batch_size * c.trainer.devices),
    Setting("learning rate", 1e-3, RECIPE_TABLE, lambda c: c.optimizer.lr),
    Setting("weight decay", 0.05, RECIPE_TABLE, lambda c: c.optimizer.weight_decay),
    Setting("warm-up epochs", 5, RECIPE_TABLE, lambda c: c.scheduler.warmup_epochs),
    Setting("label smoothing", 0.1, RECIPE_TABLE, lambda c: c.label_smoothing),
    Setting("drop path", 0.1, RECIPE_TABLE, lambda c: c.model.drop_path_rate),
    Setting("mixup", 0.8, RECIPE_TABLE, lambda c: c.mixup.mixup_alpha),
    Setting("cutmix", 1.0, RECIPE_TABLE, lambda c: c.mixup.cutmix_alpha),
    Setting("repeated augmentation", 3, COMMAND, lambda c: c.data.repeats),
    Setting("RandAugment magnitude", 9, COMMAND, lambda c: _policy("m")),
    Setting("RandAugment magnitude deviation", 0.5, COMMAND, lambda c: _policy("mstd")),
    Setting("switch to cutmix", 0.5, COMMAND, lambda c: c.mixup.switch_prob),
    Setting("random erasing", 0.25, COMMAND, lambda c: c.data.augment.re_prob),
    Setting("smallest crop", 0.08, COMMAND, lambda c: c.data.augment.scale[0]),
    Setting("colour jitter (inactive)", 0.4, COMMAND, lambda c: c.data.augment.color_jitter),
    Setting("cooldown epochs", 10, COMMAND, lambda c: c.scheduler.cooldown_epochs),
    Setting("learning rate at the start", 1e-6, COMMAND, lambda c: c.scheduler.warmup_lr),
    Setting("learning rate at the end", 1e-5, COMMAND, lambda c: c.scheduler.min_lr),
    Setting("AdamW epsilon", 1e-8, COMMAND, lambda c: c.optimizer.eps),
    Setting("decay of the weights' average", 0.99996, COMMAND, lambda c: c.ema),
    Setting("resize for evaluation", 248, EVALUATION, lambda c: _resize()),
    Setting("crop for evaluation", 224, EVALUATION, lambda c: c.data.image_size),
    Setting("mean of the pixels", 0.5, EVALUATION, lambda c: c.data.mean),
    Setting("deviation of the pixels", 0.5, EVALUATION, lambda c: c.data.std),
)


def recipe_rows() -> list[Row]:
    """Rows of Table 3: the recipe's numbers against our experiment file's."""

    def reader(setting: Setting) -> Callable[[], float]:
        return lambda: setting.ours(recipe_config())

    return [
        Row(
            table="3",
            name=setting.name,
            metric="setting",
            paper=setting.value,
            unit="",
            source=setting.source,
            evidence="printed" if setting.source == RECIPE_TABLE else "found",
            compute=reader(setting),
        )
        for setting in RECIPE
    ]
