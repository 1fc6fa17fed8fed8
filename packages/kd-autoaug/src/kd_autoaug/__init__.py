"""KD for AutoAugment: exact augmentation per sample, distillation on the same view, and what augmentation destroyed.

Example:
    >>> from kd_autoaug import BatchAugment, Policy
    >>> augment = BatchAugment(Policy.from_name("randaugment(n=2,m=9,space=tf_tpu)"), seed=0)
    >>> views = augment(images, index, view=0)  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

from effkit.lazy import attach

if TYPE_CHECKING:
    from kd_autoaug import ops as ops
    from kd_autoaug.augmentation.augment import BatchAugment as BatchAugment
    from kd_autoaug.augmentation.policies.policy import Policy as Policy
    from kd_autoaug.cache.cache import LogitCache as LogitCache
    from kd_autoaug.distillation.loss import TopKDistillationLoss as TopKDistillationLoss
    from kd_autoaug.distillation.teacher import Teacher as Teacher

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "BatchAugment": "kd_autoaug.augmentation.augment",
        "LogitCache": "kd_autoaug.cache.cache",
        "Policy": "kd_autoaug.augmentation.policies.policy",
        "Teacher": "kd_autoaug.distillation.teacher",
        "TopKDistillationLoss": "kd_autoaug.distillation.loss",
    },
)
