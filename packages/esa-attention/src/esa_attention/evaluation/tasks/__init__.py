"""Long-context tasks that need no download: retrieval in two vocabularies, and cross-entropy by position.

A generator (:mod:`needle <esa_attention.evaluation.tasks.needle>`, ``multi_needle``, ``passkey``, ``counting_stars``,
``variable_tracking``) makes a :class:`~esa_attention.evaluation.tasks.sample.Sample`; ``runner`` feeds it to a model
and scores it.
"""
