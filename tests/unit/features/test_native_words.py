"""Eight words at a time, against NumPy one by one."""

from __future__ import annotations

import numba
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudsdk._native import (
    add_tiles,
    add_values,
    consecutive8,
    highest_bit,
    later8,
    leave_chunks8,
    lowest_bit,
    matching8,
    ones,
    sum_consecutive,
    sum_values,
    sum_words,
)

UNKNOWN, MOST = -(2**63), 2**63 - 1
SEEDS = st.integers(0, 2**32 - 1)
LENGTHS = st.integers(0, 70)


@numba.njit
def masks_of(words, at, mask, want, limit, first):
    return matching8(words, at, mask, want), later8(words, at, limit), consecutive8(words, at, first)


@numba.njit
def bits_of(word):
    return ones(word), highest_bit(word), lowest_bit(word)


@numba.njit
def values_into(words, at, n, bits, first_bit, out, squares):
    add_values(words, at, n, bits, first_bit, out, 1, squares, 0)


@numba.njit
def tiles_into(words, at, stride, n, bits, first_bit, out, squares):
    add_tiles(words, at, stride, n, bits, first_bit, out, 1, squares, 0)
    return sum_words(words, at, n, bits, first_bit)


@numba.njit
def sums_into(words, at, n, bits, first_bit, out):
    sum_values(words, at, n, bits, first_bit, out, 1)


@numba.njit
def chunks_left(words, at, n, now, ages, ages_at, out):
    leave_chunks8(words, at, n, now, ages, ages_at, out, 1)


@numba.njit
def sum_of_epochs(words, numbers_at, first, at, n):
    return sum_consecutive(words, numbers_at, first, at, n)


def as_mask(flags):
    return sum(1 << lane for lane, flag in enumerate(flags) if flag)


def empty_window():
    """A word that is nobody's, then number, sum, largest and smallest; the sum of squares."""
    return np.array([7, 0, 0, UNKNOWN, MOST, 7]), np.zeros(1)


@settings(max_examples=200, print_blob=True, deadline=None)
@given(words=st.lists(st.integers(-3, 3), min_size=12, max_size=12), at=st.integers(0, 4), of=st.integers(-3, 3))
def test_masks_say_of_each_of_eight_words_what_is_asked(words, at, of):
    eight = words[at : at + 8]

    matching, later, consecutive = masks_of(np.array(words), at, 3, of & 3, of, of)

    assert as_mask(word & 3 == of & 3 for word in eight) == matching
    assert as_mask(word > of for word in eight) == later
    assert as_mask(word == of + lane for lane, word in enumerate(eight)) == consecutive


@settings(max_examples=200, print_blob=True, deadline=None)
@given(word=st.integers(1, 2**64 - 1))
def test_bits_are_counted_and_found(word):
    expected = (word.bit_count(), word.bit_length() - 1, (word & -word).bit_length() - 1)

    assert expected == bits_of(np.array([word], dtype=np.uint64).view(np.int64)[0])


@settings(max_examples=300, print_blob=True, deadline=None)
@given(seed=SEEDS, n=LENGTHS, at=st.integers(0, 9), first_bit=st.integers(0, 80))
def test_a_window_holds_the_known_values_whose_bits_are_set(seed, n, at, first_bit):
    rng = np.random.default_rng(seed)
    words = rng.integers(-(2**20), 2**20, 90)
    words[rng.random(90) < 0.2] = UNKNOWN
    bits = rng.integers(UNKNOWN, MOST, 4)
    out, squares = empty_window()

    values_into(words, at, n, bits, first_bit, out, squares)

    meant = np.unpackbits(bits.view(np.uint8), bitorder="little")[first_bit : first_bit + n].astype(bool)
    values = words[at : at + n][meant]
    values = values[values != UNKNOWN]
    expected = [7, len(values), values.sum(), values.max(initial=UNKNOWN), values.min(initial=MOST), 7]
    assert expected == out.tolist()
    assert float((values**2).sum()) == squares[0]

    only_sums, _ = empty_window()
    sums_into(words, at, n, bits, first_bit, only_sums)

    assert [*expected[:3], UNKNOWN, MOST, 7] == only_sums.tolist()


@settings(max_examples=300, print_blob=True, deadline=None)
@given(seed=SEEDS, n=LENGTHS, at=st.integers(0, 9), ages_at=st.integers(0, 4))
def test_chunks_whose_first_word_is_later_are_left_out_from_the_end(seed, n, at, ages_at):
    rng = np.random.default_rng(seed)
    words = np.sort(rng.integers(0, 40, 90))
    ages, now = rng.integers(0, 50, 12), 45
    out = np.full(10, 7)

    chunks_left(words, at, n, now, ages, ages_at, out)

    expected = []
    for age in ages[ages_at : ages_at + 8]:
        left = n
        while left >= 8 and words[at + left - 8] > now - age:
            left -= 8
        expected.append(left)
    assert [7, *expected, 7] == out.tolist()


@settings(max_examples=200, print_blob=True, deadline=None)
@given(seed=SEEDS, n=LENGTHS, first=st.integers(-3, 2**40))
def test_words_of_other_numbers_than_the_consecutive_ones_are_not_summed(seed, n, first):
    rng = np.random.default_rng(seed)
    numbers = first + np.arange(80) - 3 * (rng.random(80) < 0.3)
    words = np.append(numbers, rng.integers(-(2**40), 2**40, 80))

    expected = words[80 : 80 + n][numbers[:n] == first + np.arange(n)].sum()

    assert expected == sum_of_epochs(words, 0, first, 80, n)


@settings(max_examples=200, print_blob=True, deadline=None)
@given(seed=SEEDS, n=LENGTHS, first_bit=st.integers(0, 80))
def test_tiles_whose_bits_are_set_are_added_to_what_a_window_holds(seed, n, first_bit):
    rng = np.random.default_rng(seed)
    stride = 80
    words = rng.integers(-(2**20), 2**20, 5 * stride)
    squares_of_tiles = words.view(np.float64)[2 * stride : 3 * stride]
    squares_of_tiles[:] = rng.integers(0, 2**30, stride)
    bits = rng.integers(UNKNOWN, MOST, 4)
    out, squares = empty_window()
    out[1:5], squares[0] = (3, 4, 5, -5), 6.0

    total = tiles_into(words, 0, stride, n, bits, first_bit, out, squares)

    meant = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")[first_bit : first_bit + n])
    count, sums, _, largest, smallest = words.reshape(5, stride)[:, meant]
    assert count.sum() == total
    assert [7, 3 + total, 4 + sums.sum(), largest.max(initial=5), smallest.min(initial=-5), 7] == out.tolist()
    assert 6.0 + squares_of_tiles[meant].sum() == squares[0]


def test_squares_that_float64_cannot_hold_are_summed_lane_by_lane_then_across():
    """
    The order is part of what is promised: the same bits on every CPU.
    """
    words = np.random.default_rng(5).integers(2**40, 2**41, 40)
    out, squares = empty_window()

    values_into(words, 0, 40, np.full(4, -1), 0, out, squares)

    lanes = np.zeros(8)
    for chunk in (words.astype(np.float64) ** 2).reshape(5, 8):
        lanes += chunk
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    assert lanes[0] == squares[0]
