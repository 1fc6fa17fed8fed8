"""Pictures: one look, captions that fit, a sentence that says what is seen, and PNG files that are small and whole.

Matplotlib is imported where it is used: every command imports reports, few of them draw.
"""

from effkit.plots.captions import fit_captions
from effkit.plots.png import save_png
from effkit.plots.sentence import describe, joined, read_description
from effkit.plots.style import PLOT_COLOURS, figure

__all__ = ["PLOT_COLOURS", "describe", "figure", "fit_captions", "joined", "read_description", "save_png"]
