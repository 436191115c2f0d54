"""Patterns against SciPy and NumPy, on whatever coordinates hypothesis thinks of."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tsgu._core.pattern import _symbolic


@st.composite
def coordinates(draw):
    """Coordinates with empty rows, repeats and any order, perhaps none at all."""
    m, n = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    size = draw(st.integers(0, 20)) if m and n else 0
    row = np.array(
        [draw(st.integers(0, m - 1)) for _ in range(size)], dtype=draw(st.sampled_from([np.int32, np.int64]))
    )
    col = np.array([draw(st.integers(0, n - 1)) for _ in range(size)], dtype=row.dtype)
    return row, col, (m, n)


def gathered(symbolic, given):
    if symbolic.merge is not None:
        values = np.zeros(symbolic.nnz)
        np.add.at(values, symbolic.merge, given)
        return values
    return given if symbolic.order is None else given[symbolic.order]


@given(coordinates())
@settings(deadline=None)
def test_canonical_form_is_that_of_scipy_with_zeros_kept(coordinates):
    """Catches: a repeat stored twice, an entry out of order, a value that lands beside its place."""
    row, col, shape = coordinates
    given = np.arange(1.0, row.size + 1)
    symbolic = _symbolic.from_coo(row, col, shape)
    truth = sp.coo_array((given, (row, col)), shape=shape).tocsr()
    truth.sum_duplicates()
    np.testing.assert_array_equal(symbolic.indptr, truth.indptr)
    np.testing.assert_array_equal(symbolic.col, truth.indices)
    np.testing.assert_array_equal(gathered(symbolic, given), truth.data)
    np.testing.assert_array_equal(symbolic.row, truth.tocoo().coords[0])
    assert symbolic.col.dtype == np.int32


@given(coordinates())
@settings(deadline=None)
def test_transpose_permutes_the_values_and_twice_is_nothing(coordinates):
    """Catches: a permutation applied the wrong way round."""
    row, col, shape = coordinates
    symbolic = _symbolic.from_coo(row, col, shape)
    values = np.arange(1.0, symbolic.nnz + 1)
    dense = np.zeros(shape)
    dense[symbolic.row, symbolic.col] = values
    other = symbolic.transpose
    turned = np.zeros(other.shape)
    turned[other.row, other.col] = values[symbolic.transposition]
    np.testing.assert_array_equal(turned, dense.T)
    np.testing.assert_array_equal(values[symbolic.transposition][other.transposition], values)
    symmetric = shape[0] == shape[1] and np.array_equal(dense != 0, dense.T != 0)
    assert symbolic.is_symmetric == symmetric


@given(coordinates())
@settings(deadline=None)
def test_csr_gives_what_coo_gives(coordinates):
    """Catches: the short way for sorted rows taken for unsorted ones, or confused by empty rows."""
    row, col, shape = coordinates
    order = np.argsort(row, kind="stable")
    row, col = row[order], col[order]
    indptr = np.searchsorted(row, np.arange(shape[0] + 1))
    given = np.arange(1.0, row.size + 1)
    one, two = _symbolic.from_csr(indptr, col, shape), _symbolic.from_coo(row, col, shape)
    np.testing.assert_array_equal(one.indptr, two.indptr)
    np.testing.assert_array_equal(one.col, two.col)
    np.testing.assert_array_equal(gathered(one, given), gathered(two, given))


def test_locate_finds_entries_of_another_pattern():
    """Catches: an entry that is not stored, read from its neighbour."""
    wanted = _symbolic.from_coo(np.array([0, 1, 2]), np.array([0, 1, 2]), (3, 3))
    among = _symbolic.from_coo(np.array([0, 2, 2]), np.array([0, 1, 2]), (3, 3))
    place, stored = _symbolic.locate(wanted, among)
    assert stored.tolist() == [True, False, True]
    assert place[stored].tolist() == [0, 2]
    nothing = _symbolic.from_coo(np.array([], dtype=int), np.array([], dtype=int), (3, 3))
    assert not _symbolic.locate(wanted, nothing)[1].any()


def test_indices_outside_the_shape_are_refused_with_their_number():
    """Catches: a product that reads beyond its memory."""
    with pytest.raises(ValueError, match=r"row indices must lie in 0\.\.2; got 1 outside, from -1 to 2"):
        _symbolic.from_coo(np.array([-1, 2]), np.array([0, 0]), (3, 3))
    with pytest.raises(ValueError, match=r"col indices must lie in 0\.\.2; got 2 outside, from 3 to 4"):
        _symbolic.from_csr(np.array([0, 2, 2, 2]), np.array([3, 4]), (3, 3))
    with pytest.raises(
        ValueError, match="row pointers must rise from 0 to the number of column indices, 2, in 4 steps"
    ):
        _symbolic.from_csr(np.array([0, 2, 1, 2]), np.array([0, 1]), (3, 3))


def test_64_bit_indices_are_kept_where_32_do_not_suffice():
    """Catches: row numbers that wrap around."""
    assert _symbolic.index_dtype(10, (2**31 - 1, 5)) is np.int32
    assert _symbolic.index_dtype(10, (2**31, 5)) is np.int64
    far = _symbolic.from_coo(np.array([1]), np.array([2**31]), (2, 2**31 + 1))
    assert far.col.tolist() == [2**31]
