"""Words of Chinese text, by `jieba`, as LongBench has them."""

from __future__ import annotations

import functools
import warnings

from effkit.errors import UserError
from esa_attention.evaluation.benchmarks.metrics.words import Segmenter

__all__ = ["chinese_segmenter"]


@functools.cache
def chinese_segmenter() -> Segmenter:
    """What cuts Chinese text into words.

    Raises:
        UserError: If jieba is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its sources have escapes that newer Pythons warn of
            import jieba  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise UserError(
            "multifieldqa_zh, dureader and vcsum are scored on words that jieba cuts, which is not installed: pip "
            "install jieba, or name the other data sets in task.datasets"
        ) from error
    jieba.setLogLevel(60)
    return lambda text: list(jieba.cut(text, cut_all=False))
