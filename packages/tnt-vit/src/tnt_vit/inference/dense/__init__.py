"""Maps at several strides for detectors and segmenters, which the paper's Tables 10, 11 and 13 are about."""

from tnt_vit.inference.dense.backbone import DenseBackbone
from tnt_vit.inference.dense.neck import FeaturePyramid

__all__ = ["DenseBackbone", "FeaturePyramid"]
