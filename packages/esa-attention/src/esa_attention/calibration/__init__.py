"""Calibration: the query and key maps of every layer from some text (section 3.3 of the paper, Eq. 7, and ours)."""

from esa_attention.calibration.calibrate import calibrate
from esa_attention.calibration.closed_form import closed_form
from esa_attention.calibration.moments import StreamingMoments
from esa_attention.calibration.pca import key_pca
from esa_attention.calibration.recall import per_layer_recall, recall_at_k, score_error
from esa_attention.calibration.sgd import sgd_paper
from esa_attention.calibration.spectrum import rank_for_tail

__all__ = [
    "StreamingMoments",
    "calibrate",
    "closed_form",
    "key_pca",
    "per_layer_recall",
    "rank_for_tail",
    "recall_at_k",
    "score_error",
    "sgd_paper",
]
