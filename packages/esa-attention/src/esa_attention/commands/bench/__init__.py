"""The command ``bench``: one attention layer timed, ESA's whole step against full attention, in one interleaved run.

What bounds a decoding step is the bytes it must read. The floor of each row is those bytes at the rate of this
machine's large copy; the bound on the ratio is the ratio of the bytes.
"""
