"""One picture at a time, as a ``Dataset`` in a loader's worker meets it: Pillow's C functions, and few calls.

The bits are those of :func:`kd_autoaug.ops.apply`. What a batch spends before its first pixel is read, hundreds of
pictures share; here nothing is shared, so numbers are Python's own and tables are kept.
"""

from kd_autoaug.ops.single.chain import Step, apply_steps, apply_to_picture, cut_out, ink, steps_of
from kd_autoaug.ops.single.planes import from_picture, to_picture

__all__ = ["Step", "apply_steps", "apply_to_picture", "cut_out", "from_picture", "ink", "steps_of", "to_picture"]
