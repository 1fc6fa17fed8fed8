"""Published long-context benchmarks, read from the user's files: records with prompts, answers, and their scores.

Nothing of the benchmarks is in this package: neither data nor prompts. Their formats and metrics were read in
LongBench (2e00731), InfiniteBench (88b3daa), RULER and OpenCompass (NeedleBench) and are written anew.
"""
