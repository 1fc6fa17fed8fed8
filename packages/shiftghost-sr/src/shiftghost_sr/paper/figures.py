"""The figures, data only: what the paper and its official release print, and structural counts of the networks."""

from __future__ import annotations

__all__ = ["ABSTRACT", "DEPLOYED", "MODELS", "NOT_AVAILABLE", "OFFICIAL_PSNR", "RATIOS"]

NOT_AVAILABLE = "needs DIV2K and weeks of a GPU; the release holds no weights"

# Abstract of the paper (arXiv 2101.08525 v2), EDSR x2: what falls, in percent.
ABSTRACT = {"params": 46.0, "MACs": 46.0, "GPU latency": 42.0}

# The official release's readme, EDSR x2 with self-ensemble; its metric floors where others round.
OFFICIAL_PSNR = {"Set5": 38.101, "Set14": 33.856, "B100": 32.288, "Urban100": 32.793, "DIV2K validation": 34.8748}

# (model, scale): dense parameters, dense GMAC, ghost parameters, logits, ghost GMAC; an HR frame of 1280 x 720.
MODELS: dict[tuple[str, int], tuple[int, float, int, int, float]] = {
    ("edsr", 2): (40_729_603, 9384.7, 21_847_043, 576, 5036.1),
    ("edsr", 4): (43_089_923, 2894.5, 24_207_363, 576, 1807.4),
    ("edsr_baseline", 2): (1_369_859, 316.2, 779_011, 288, 180.4),
    ("edsr_baseline", 3): (1_554_499, 160.3, 963_651, 288, 99.9),
    ("edsr_baseline", 4): (1_517_571, 114.2, 926_723, 288, 80.3),
    ("rdn", 2): (22_123_395, 5096.2, 11_502_467, 1152, 2650.1),
    ("rdn", 4): (22_271_107, 1309.2, 11_650_179, 1152, 697.7),
    ("carn", 2): (1_591_939, 222.8, 1_259_587, 162, 146.4),
    ("carn", 3): (1_591_939, 118.8, 1_259_587, 162, 84.8),
    ("carn", 4): (1_591_939, 90.9, 1_259_587, 162, 71.8),
    ("carn_m", 2): (414_787, 91.2, 386_947, 54, 72.1),
    ("imdn", 2): (694_404, 158.8, 417_348, 162, 95.1),
    ("imdn", 4): (715_176, 40.9, 438_120, 162, 25.0),
    ("vdsr", 2): (664_704, 612.6, 332_928, 162, 306.8),
}

# EDSR x2: share of intrinsic maps -> parameters, GMAC.
RATIOS = {0.25: (12_405_763, 2861.8), 0.625: (26_567_683, 6123.3), 0.75: (31_288_323, 7210.4)}

# Deployed, x2: GMAC where every direction is no move, along an axis, diagonal. VDSR: MACs of one HR pixel. RDN's 1x1
# convolutions read copies as one tap where nothing moves; counted as two, the first would be 1698.8.
DEPLOYED = {
    "edsr": (3948.9, 4311.3, 4552.9),
    "edsr_baseline": (146.4, 157.7, 165.3),
    "rdn": (1638.4, 2015.9, 2227.3),
    "carn": (127.3, 133.6, 137.9),
    "vdsr": (175_968, 228_288, 263_168),
}
