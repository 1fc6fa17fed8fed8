"""Names that configs and operators share; imports nothing, so that a command line can check them without torch."""

__all__ = ["ACTS", "BACKENDS"]

ACTS = ("gelu", "gelu_tanh", "relu", "silu", "identity")
BACKENDS = ("auto", "fft", "dense", "crt", "triton")
