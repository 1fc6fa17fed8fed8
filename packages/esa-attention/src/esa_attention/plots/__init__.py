"""Pictures of what ESA does, from plain arrays: each function checks shapes, draws in one style, and writes one PNG.

Curves are labelled where they end instead of in a legend, with the eight colours of ``effkit.report.PLOT_COLOURS``; a
method has the same colour in every picture.
"""

from esa_attention.plots.needle import needle_heatmap
from esa_attention.plots.perplexity import perplexity_curves
from esa_attention.plots.recall import recall_curves
from esa_attention.plots.scaling import bytes_curves, time_curves
from esa_attention.plots.selection import consecutive_overlap, overlap_curves, selection_map
from esa_attention.plots.spectrum import spectrum_curves

__all__ = [
    "bytes_curves",
    "consecutive_overlap",
    "needle_heatmap",
    "overlap_curves",
    "perplexity_curves",
    "recall_curves",
    "selection_map",
    "spectrum_curves",
    "time_curves",
]
