"""The counter-based random numbers: known answers, distribution, and that nothing but the key matters."""

import random

import numpy as np
import pytest
import torch

from effkit.errors import UserError
from kd_autoaug.augmentation import rng

N = 20_000


def hexed(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


# Known-answer vectors that come with Random123 (kat_vectors, philox4x32 10): counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def scalar_philox(counter, key):
    """Philox on Python integers, as the paper's figure has it."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def chi_square(observed: torch.Tensor, expected: torch.Tensor) -> float:
    """Excess of the chi-square statistic over its mean, in its standard deviations."""
    degrees = len(observed) - 1
    return float((((observed - expected) ** 2 / expected).sum() - degrees) / (2 * degrees) ** 0.5)


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers(counter, key, result):
    words = rng.philox(torch.tensor(hexed(counter)), tuple(hexed(key)))
    assert words.tolist() == hexed(result)
    assert scalar_philox(hexed(counter), hexed(key)) == hexed(result)


def test_counter_layout():
    seed, view = 0x0123456789ABCDEF, 7
    index = torch.tensor([0, 5, (3 << 32) + 9])
    words = rng.random_words(seed, index, view, stream=18, count=8)
    assert words.shape == (3, 8)
    key = (seed & 0xFFFFFFFF, seed >> 32)
    for row, i in zip(words.tolist(), index.tolist(), strict=True):
        blocks = [scalar_philox((i & 0xFFFFFFFF, view, 18 << 8 | b, i >> 32), key) for b in range(2)]
        assert row == blocks[0] + blocks[1]


def test_streams_together_equal_streams_alone_and_fewer_words_are_a_beginning():
    index = torch.arange(50)
    together = rng.words_of(3, index, 2, (0, 16, 17), 8)
    for s, stream in enumerate((0, 16, 17)):
        assert torch.equal(together[s].t(), rng.random_words(3, index, 2, stream, 8))
        assert torch.equal(together[s, :3].t(), rng.random_words(3, index, 2, stream, 3))


def test_every_part_of_the_key_matters_and_order_does_not():
    index = torch.arange(64)
    base = rng.random_words(0, index, 0, 0, 4)
    for other in (
        rng.random_words(1, index, 0, 0, 4),
        rng.random_words(1 << 32, index, 0, 0, 4),
        rng.random_words(0, index + (1 << 32), 0, 0, 4),
        rng.random_words(0, index, 1, 0, 4),
        rng.random_words(0, index, 0, 1, 4),
    ):
        assert not (other == base).all(1).any()
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rng.random_words(0, index[order], 0, 0, 4), base[order])
    views = index % 3
    mixed = rng.random_words(0, index, views, 0, 4)
    for v in range(3):
        assert torch.equal(mixed[views == v], rng.random_words(0, index[views == v], v, 0, 4))


def test_words_are_uniform_and_independent():
    words = rng.words_of(11, torch.arange(N), 5, (0, 16), 4)
    flat = torch.cat([words[0], words[1]])  # (8, N)
    for row in flat:
        counts = torch.bincount(row >> 24, minlength=256).double()  # the highest byte
        assert abs(chi_square(counts, torch.full_like(counts, N / 256))) < 5
        counts = torch.bincount(row & 255, minlength=256).double()  # the lowest
        assert abs(chi_square(counts, torch.full_like(counts, N / 256))) < 5
    correlation = torch.corrcoef(flat.double()) - torch.eye(8)
    assert correlation.abs().max() < 5 / N**0.5
    # Neighbouring samples and neighbouring views are as unrelated as neighbouring words.
    u = rng.uniform(flat[0])
    later = rng.uniform(rng.random_words(11, torch.arange(N), 6, 0, 1)[:, 0])
    for a, b in ((u[1:], u[:-1]), (u, later)):
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 5 / N**0.5


def test_uniform_and_integers_at_their_ends():
    words = torch.tensor([0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
    u = rng.uniform(words)
    assert u[0] == 0.0
    assert u[-1] == 1 - 2**-32
    assert u[3] == 0.5
    assert rng.integers(words, 10).tolist() == [0, 0, 4, 5, 9]
    assert rng.integers(words, torch.tensor([3, 3, 3, 3, 3])).tolist() == [0, 0, 1, 1, 2]
    assert rng.integers(words, 1).tolist() == [0] * 5


def test_integers_are_uniform():
    words = rng.random_words(2, torch.arange(N), 0, 0, 1)[:, 0]
    for n in (2, 14, 25, 493):
        counts = torch.bincount(rng.integers(words, n), minlength=n).double()
        assert len(counts) == n
        assert abs(chi_square(counts, torch.full_like(counts, N / n))) < 5


def test_normal_is_normal():
    values = rng.normal(rng.random_words(2, torch.arange(N), 0, 0, 2)).flatten()
    assert abs(values.mean()) < 5 / (2 * N) ** 0.5
    assert abs(values.var() - 1) < 5 * (2 / (2 * N)) ** 0.5
    edges = torch.special.ndtri(torch.linspace(0, 1, 21, dtype=torch.float64))
    counts = torch.bincount(torch.bucketize(values, edges[1:-1]), minlength=20).double()
    assert abs(chi_square(counts, torch.full_like(counts, 2 * N / 20))) < 5
    ends = rng.normal(torch.tensor([0, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]))
    assert torch.equal(ends, -ends.flip(0))
    assert 4.2 < ends[-1] < 4.4


def test_the_quantiles_are_the_normal_distribution_s():
    words = torch.arange(1 << 16) << 16
    exact = torch.special.ndtri((torch.arange(1 << 16, dtype=torch.float64) + 0.5) / (1 << 16))
    assert (rng.normal(words) - exact).abs().max() < 2**-20


def states():
    return torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002


def test_no_global_generator_is_touched():
    before = states()
    rng.normal(rng.random_words(0, torch.arange(10), 0, 0, 8))
    assert states() == before


@pytest.mark.parametrize("seed", [-1, 1 << 64, 1.0, True, "0"])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(UserError, match="seed="):
        rng.random_words(seed, torch.arange(2), 0, 0, 1)
