"""The laptop-scale claim: what ESA promises, on two models small enough for a CPU and five minutes.

A model with hand-written weights knows the answer to every question it is asked, so that what is lost is lost by
attention: 32 facts in 65,536 tokens, 128 times what its rotary embedding can tell apart. A language model trained here
on text that ships with Python shows what happens to ordinary prediction past the trained context, and how well
compressed scores find what exact scores would.
"""
