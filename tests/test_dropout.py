"""Dropout: its random numbers, its masks, its gradient."""

import fastconv.functional as F
import numpy as np
import problems
import pytest
import tolerance
from conftest import runnable_kernels
from fastconv import _core


def philox(seed, count):
    """The first words of a seed's stream, in Python integers: Philox 4x32-10 on the counters 0, 1, 2, ..."""
    words = []
    for counter in range((count + 3) // 4):
        c = [counter & 0xFFFFFFFF, counter >> 32, 0, 0]
        k = [seed & 0xFFFFFFFF, seed >> 32]
        for _ in range(10):
            a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
            k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
        words += c
    return np.array(words[:count], np.uint64)


def test_philox_is_philox():
    """The published answer to counter 0 and key 0 (the authors' known-answer tests)."""
    assert [hex(word) for word in philox(0, 4).tolist()] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]


@pytest.mark.parametrize("count", [1, 3, 15, 16, 17, 31, 33, 64, 70000])
def test_mask_is_the_stream(isa, count, threads):
    """Every length, any number of threads: kept where the word is at least p times 2**32."""
    for seed in (0, 7, 2**64 - 1):
        for number in (1, 3):
            threads(number)
            mask = _core.dropout_mask((count,), 0.3, seed)
            shown = min(count, 200)
            np.testing.assert_array_equal(mask[:shown], philox(seed, shown) >= round(0.3 * 2**32))
    assert count < 1000 or abs(mask.mean() - 0.7) < 5 * np.sqrt(0.21 / count)


@pytest.mark.parametrize("row", runnable_kernels("dropout"), ids=lambda row: row["name"])
def test_every_kernel(row, force_kernel):
    """Each row of the table gives the same mask."""
    x = np.ones(1003, row["dtype"])
    with force_kernel(row["name"]):
        y, mask = F.dropout(x, 0.25, seed=5)
    np.testing.assert_array_equal(mask, philox(5, 1003) >= 2**30)
    np.testing.assert_array_equal(y, np.where(mask, x.dtype.type(1 / 0.75), 0))


@pytest.mark.parametrize("dtype", problems.DTYPES)
@pytest.mark.parametrize("view", problems.VIEWS)
def test_forward_and_backward(isa, view, dtype):
    """Kept values are scaled, others are zero; the mask belongs to positions, not to memory."""
    rng = np.random.default_rng(0)
    x = problems.as_view(rng.standard_normal((3, 5, 7, 11)).astype(dtype), view)
    y, mask = F.dropout(x, 0.4, seed=3)
    np.testing.assert_array_equal(mask, F.dropout(np.ones((3, 5, 7, 11), "d"), 0.4, seed=3)[1])
    scale = np.dtype(dtype).type(1 / 0.6)
    tolerance.assert_same_bits(y, np.where(mask, x * scale, dtype(0)))
    g = problems.as_view(rng.standard_normal(x.shape).astype(dtype), view)
    tolerance.assert_same_bits(F.dropout_backward(g, mask, 0.4), np.where(mask, g * scale, dtype(0)))
    assert mask.dtype == np.bool_


def test_seeds(isa):
    """One seed, one mask; no seed, a new one each time."""
    x = np.ones(1000, "f")
    tolerance.assert_same_bits(F.dropout(x, seed=9)[1], F.dropout(x, seed=9)[1])
    assert (F.dropout(x, seed=9)[1] != F.dropout(x, seed=10)[1]).any()
    assert (F.dropout(x)[1] != F.dropout(x)[1]).any()


def test_probabilities(isa):
    """0 keeps everything, 1 nothing; what is dropped is zero even where it was not finite."""
    x = np.array([1, np.nan, np.inf, -2], "f")
    y, mask = F.dropout(x, 0.0, seed=1)
    assert mask.all()
    np.testing.assert_array_equal(y, x)
    y, mask = F.dropout(x, 1.0, seed=1)
    assert not mask.any()
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(F.dropout_backward(x, mask, 1.0), 0)


def test_evaluation(isa):
    """Nothing is dropped, and the result is the caller's own."""
    x = np.ones((3, 4), "f")
    y = F.dropout(x, 0.5, False)
    np.testing.assert_array_equal(y, x)
    assert not np.shares_memory(x, y)


def test_noise_shape(isa):
    """An axis of size 1 in the noise shape shares its entries."""
    x = np.ones((6, 5, 4), "f")
    y, mask = F.dropout(x, 0.5, noise_shape=(6, 1, None), seed=2)
    assert mask.shape == (6, 1, 4)
    np.testing.assert_array_equal(y, np.broadcast_to(mask, x.shape) * 2.0)
    np.testing.assert_array_equal(F.dropout_backward(x, mask), y)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_channels(isa, n):
    """Whole channels, the same ones in both data formats."""
    x = np.ones((8, 20, *range(2, 2 + n)), "f")
    forward, backward = getattr(F, f"dropout{n}d"), getattr(F, f"dropout{n}d_backward")
    y, mask = forward(x, 0.5, seed=4)
    assert mask.shape == (8, 20, *(1,) * n)
    assert 0 < mask.sum() < mask.size
    np.testing.assert_array_equal(y, np.broadcast_to(mask, x.shape) * 2.0)
    np.testing.assert_array_equal(backward(x, mask), y)
    last, last_mask = forward(np.moveaxis(x, 1, -1), 0.5, seed=4, data_format="channels_last")
    np.testing.assert_array_equal(np.moveaxis(last, -1, 1), y)
    np.testing.assert_array_equal(np.moveaxis(last_mask, -1, 1), mask)


def test_backward_misuse():
    """The mask is checked as the other arguments are."""
    g = np.ones((3, 4), "f")
    with pytest.raises(TypeError, match="mask"):
        F.dropout_backward(g, g)
    with pytest.raises(ValueError, match=r"mask.*\(2, 4\)"):
        F.dropout_backward(g, np.ones((2, 4), bool))
